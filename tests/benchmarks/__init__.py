"""Surefoot beside bare Celery, in one run on one machine. `make bench` runs it; pytest does not collect it.

What is measured, each with its section of the page:

enqueueing.py   accepting and ringing, no worker running
backlog.py      jobs that are all there from the start, and what each costs
stream.py       jobs that are enqueued while the workers run
latency.py      from enqueue to the result in hand
thousand.py     a thousand actions that wait, in one process; full_ledger.py  with millions of finished jobs about
over_http.py    accepting over HTTP beside accepting directly; console.py  what its pages take
gates.py        what gates cost that nobody configured, and sealing; counting.py  what counting for Prometheus costs
breaker.py      what a closed breaker costs, and how quick one is
steps.py        one job's statements, timed one by one

With what:

stage.py        a fresh database and an empty Redis for each measurement, on the embedded servers; filled.py  a full one
clients.py      how each enqueues; crew.py  which worker processes serve it; peers.py  who plays: both together
bare.py         the Celery app of the peers; actions.py  the same actions as Surefoot's
paired.py       backlogs with a part of Surefoot and without it; bypass.py, bypassed.py  workers in which it is switched
workers.py      their processes; ends.py  when the last job has ended; cpu.py  who spends processor time
rounds.py       every measure and every peer in turn; figures.py  how much, and what was measured
targets.py      what the issues ask
machine.py      what the figures were taken on
report.py       docs/benchmarks.md, of the pieces in markdown.py
"""
