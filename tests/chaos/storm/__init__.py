"""A seeded storm of faults at real processes: `make chaos`, or `python -m tests.chaos.storm`.

In the order in which a reader wants it:

__main__.py    the command, and what it says at the end
sizes.py       how large a storm is
kinds.py       the kinds of faults, schedule.py which comes when, plan.py all of that written down
run.py         one storm from its first process to its last
stage.py       what it rages on: servers, links (link.py, proxy.py), the world outside, the crew
crew.py        workers and producers, followed by others where they end
worker.py      a worker: of the current build (build_now.py) or the next (build_next.py), with a clock that may jump
actions.py     what workers do, asks_world.py the request that each makes
producing.py   a producer, load.py what it asks for, prints.py the fingerprints of that
faults/        what each kind does, notes.py how that is written down
mend.py        undoing what was left broken, before the drain
sampler.py     how everybody does, every second
gather.py      the evidence that is taken at the end
figures.py     the figures, beside what they are to be
"""
