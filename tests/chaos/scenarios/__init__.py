"""Scenarios: what one job alone cannot show. Jobs that need one another, a death among them, and the checker's word.

actions.py    what their jobs ask for
scenario.py   which there are
stage.py      one of them being played, in a lane of the crash matrix
scripts.py    jobs that are asked for one by one: cancelled, late, held, poisoned, looked up
together.py   jobs that belong together: turns, follow-ups, ticks, a batch
"""
