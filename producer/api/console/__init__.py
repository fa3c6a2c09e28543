"""The console: pages for people, made on the server from what `Producer` says, with the scopes of who looks.

Everything that is shown was somebody's words once, so all of it is redacted, made visible (`producer.controls`) and
escaped by the templates' own machinery (`page.py`), which no template can forget. The pages load two scripts and one
style sheet of ours, and nothing from elsewhere.
"""
