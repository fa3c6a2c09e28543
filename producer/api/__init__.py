"""The way in over HTTP, for services in any language: everything that `Producer` can do, and nothing more.

Not imported by the rest of `producer`: it needs the extra ``[api]``.
"""
