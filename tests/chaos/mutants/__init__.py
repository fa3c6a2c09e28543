"""Deliberate defects of the product, put into a test's own processes: the checker must find each of them.

A matrix in which everything holds says something only if it would not where something is wrong. The product knows
nothing of them: they are patched in as the parking places are.

catalogue.py    which there are, where each shows, and to which invariant
defects.py      how a worker gets one
statements.py   those in the ledger's statements
steps.py        those in the steps of a worker
askers.py       those in a process that asks
__main__.py     `python -m tests.chaos.mutants`: all of them, and the same places without them; as a table
"""
