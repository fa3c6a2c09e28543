"""The verdict on one run, from its evidence alone: `python -m tests.chaos.checker FOLDER`.

It never asks a server, and it shares with the product only what the product promises: the states and their moves, the
tables' columns and the canonical JSON. `judge` is a function of data.

findings.py   what a finding is, and how the verdict follows from all of them
view.py       the evidence by job, by request and by call
record.py     I0  the evidence does not contradict itself
acceptance.py I1  nothing accepted is lost        I2  nothing happens that nobody asked for
effects.py    I3  no effect happens twice         I4  what succeeded has happened   I5  what was given up has not
doubt.py      I6  doubt is shown, and is honest
moves.py      I7  a job only makes legal moves, and its row is the sum of its events
fences.py     I8  a job that has moved on takes no writes   I9  a job has one owner at a time
pacing.py     I12 retries keep their delays       I15 what a dead worker left is taken up in time
history.py    I13 the history has no gap
residue.py    I16 nothing is left behind
given_up.py   I17 nothing begins after its deadline  I18 only what somebody cancels is cancelled
turns.py      I19 turns of a conversation follow one another, and each is said once
gates.py      I20 nothing runs unapproved         I21 what was reserved is neither lost nor doubled
in_time.py    I22 no request leaves once its attempt was taken over
follow_ups.py the follow-ups of jobs, for I1 and I2
ticks.py      the jobs of schedules, for I1 and I2
judge.py      all of them, in order
"""
