"""The README does what it says, word for word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from producer import Settings
from tests.houses import ROOT, start_worker, worker_environment

README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 150


def test_every_file_and_every_test_that_the_documents_name_is_there() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for name, target in re.findall(r"\[([^\]]+)\]\((?!http)([^)#]+)\)", page.read_text()):
            file = page.parent / target
            assert file.exists(), f"{page.name} links to {target}"
            assert not name.startswith("test_") or f"def {name}(" in file.read_text(), f"{page.name} names {name}"


def test_the_first_action_works_as_it_is_written(settings: Settings, tmp_path: Path) -> None:
    action = next(block for block in blocks("python") if block.startswith("# greetings.py"))
    (tmp_path / "greetings.py").write_text(action)
    environment = {"SUREFOOT_ACTION_MODULES": "greetings", "PYTHONPATH": str(tmp_path)}
    console = next(block for block in blocks("console") if "greeting.write" in block)
    assert "surefoot up --actions greetings" in console
    worker = start_worker(settings, tmp_path / "worker.log", environment=environment)
    try:
        for command, said in re.findall(r"^\$ (surefoot (?!up).*)\n((?:(?!\$).*\n)*)", console, re.MULTILINE):
            done = subprocess.run(
                ["bash", "-c", command],
                env=worker_environment(settings) | {"PATH": f"{BIN}:{os.environ['PATH']}"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            shown = done.stdout + done.stderr
            if said:
                assert UUID.sub("<id>", shown) == UUID.sub("<id>", said)
            elif "explain" in command:
                assert "It ran and succeeded in attempt 2" in shown
            else:  # the chain, which is long
                assert "Good day, Ada" in shown
                assert "2 attempts" in shown
    finally:
        worker.stop()


def test_the_producers_example_names_what_there_is() -> None:
    from producer import Producer  # noqa: PLC0415
    from producer.job import Job  # noqa: PLC0415

    example = next(block for block in blocks("python") if "Producer()" in block)
    for name in re.findall(r"producer\.(\w+)\(", example):
        assert hasattr(Producer, name)
    for name in re.findall(r"job\.(\w+)", example):
        assert hasattr(Job, name) or name == "outcome"
