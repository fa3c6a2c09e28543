"""What a chaos run came to, for people and for programs: `python -m tests.chaos.report FOLDER`.

It reads the run's folder and asks nobody: the checker's evidence, and what the storm adds to it: `plan.json` (what was
to be), `samples.jsonl` (how everybody did, each second) and `figures.json` (what was measured, and what it is to be).

inputs.py    reading the folder
growth.py    whether memory, files and threads of a process only ever grow
series.py    the samples as lines that can be drawn
facts.py     the report as data: `report.json`
words.py     what the invariants and the figures mean, in a sentence
drawing.py   the pictures, as SVG
page.py      the page: `report.html`, which needs nothing from elsewhere; style.css is part of it
"""
