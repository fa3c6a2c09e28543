"""What Surefoot does where everything around it dies: the evidence of a run, and the checker that judges it.

evidence.py         what a run leaves behind: a folder, and what each of its files holds
ledger_rows.py      the ledger's part of it
evidence_folder.py  how the folder is written and read
strict.py           JSON that is exactly what a dataclass says, or an error that names the line
checker/            `python -m tests.chaos.checker FOLDER`: the verdict on one run, from its evidence alone

The crash matrix, `python -m tests.chaos.crashes`, in the order in which a reader wants it:

points.py           the named places on a job's way
deaths.py           how somebody dies there
expectations.py     how much doubt that excuses
cell.py             one of each: ask, die, wait until nothing moves
matrix.py           many cells, several at a time
lane.py             what a cell is played with: servers (their own part), workers, an asker
processes.py        the processes, switchboard.py the harness's hand in them
injected.py         what the workers load: the actions, and the places where they park (agent.py, parking.py)
asker.py            a producer that parks
effect_server.py    the world outside, effect_books.py what it remembers, weather.py how it behaves
collect.py          the harness's part of the evidence
judged.py           the verdict, crash_report.py all of them
staged.py           what cells and scenarios have in common
scenarios/          jobs that need one another, and a death among them
mutants/            defects that the checker must find, `python -m tests.chaos.mutants`
report/             what a storm came to, for people: `python -m tests.chaos.report FOLDER`
"""
