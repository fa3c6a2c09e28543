"""Surefoot beside bare Celery, in one run on one machine. `make bench` runs it; pytest does not collect it.

stage.py     a fresh database and an empty Redis for each measurement, on the embedded servers
peers.py     those who are measured: how each enqueues, which worker serves it, where its results stand
bare.py      the Celery app of the peers; actions.py  the same no-op as Surefoot's actions
measures.py  what is measured, the same way for all; cpu.py  who spends processor time on it
rounds.py    every peer in turn, round after round
steps.py     one job's statements, timed one by one
machine.py   what the figures were taken on
report.py    docs/benchmarks.md
"""
