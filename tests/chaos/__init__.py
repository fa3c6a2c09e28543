"""What Surefoot does where everything around it dies: the evidence of a run, and the checker that judges it.

evidence.py         what a run leaves behind: a folder, and what each of its files holds
ledger_rows.py      the ledger's part of it
evidence_folder.py  how the folder is written and read
strict.py           JSON that is exactly what a dataclass says, or an error that names the line
checker/            `python -m tests.chaos.checker FOLDER`: the verdict on one run, from its evidence alone
"""
