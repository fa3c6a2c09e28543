"""Every command on the pages for operators is run: those for real servers here, each as it stands on its page."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from producer import Job, Settings, State
from tests.acceptance.test_cli import BIN, run
from tests.houses import ROOT, STOP_SECONDS, House, WorkerProcess, house_of, until, worker_environment
from tests.page_commands import NO_COMMANDS, PAGES, Command, commands, in_text, languages

SECONDS = 60.0
numbers = count(1)
OURS = [each for page in PAGES for each in in_text(page) if each.program == "surefoot"]
# What stands within the text and is run by another test, which does the same.
ELSEWHERE = {
    "pip install PATH_OF_THE_CHECKOUT": (
        "containers/test_fleet_of_containers.py",
        "test_two_thousand_jobs_are_done_once_while_a_worker_redis_and_postgres_are_taken_away",
    ),
}


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("house")) as made:
        yield made


def ask(house: House, action: str, becomes: State, **params: object) -> Job:
    job = house.producer.enqueue(action, params, user_id="ada", idempotency_key=f"k{next(numbers)}")
    until(lambda: job.refresh().state is becomes)
    return job


def filled(command: Command, house: House, folder: Path) -> str:
    """The command, for something that it can be meant for."""
    line = command.text.replace("WHY", "because").replace("RESULT", "1")
    if "JOB" in line:
        in_doubt = command.text.startswith(("surefoot resolve", "surefoot explain"))
        job = (
            ask(house, "test.unsafe_unknown", State.IN_DOUBT)
            if in_doubt
            else ask(house, "down.call", State.DEAD, say="retry")
        )
        line = line.replace("JOB", str(job.id))
    if "APPROVAL" in line:
        job = ask(house, "gated.pay", State.AWAITING_APPROVAL, book=str(folder / "book"), amount=250.0)
        (asked,) = house.producer.approvals.of_job(job.id)
        line = line.replace("APPROVAL", str(asked.id)).replace("DIGEST", asked.digest).replace("PERSON", "ben")
    if "surefoot budget " in line:
        name = f"b{next(numbers)}"
        house.producer.budgets.add(name, per=["tenant"], usd=1, actions=["none.such"], reason="a test")
        line = line.replace("NAME", name)
    return line.replace("NAME", "down")


@pytest.mark.parametrize("command", OURS, ids=str)
def test_what_the_text_says_to_run_works_as_it_stands(command: Command, house: House, tmp_path: Path) -> None:
    words = shlex.split(filled(command, house, tmp_path))
    assert not [word for word in words if re.fullmatch(r"[A-Z]{2,}", word)], "what is yours to fill in is not filled in"
    done = run(house.settings, *words)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_for_what_computes_is_started_as_the_page_says(settings: Settings, tmp_path: Path) -> None:
    (command,) = (each.text for page in PAGES for each in in_text(page) if each.program == "surefoot-worker")
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(BIN / "surefoot-worker"), *shlex.split(command)[1:]],
            cwd=ROOT,
            env=worker_environment(settings),
            stdout=output,
            stderr=output,
        )
    worker = WorkerProcess(process, log)
    try:
        until(lambda: worker.events("worker.started"), seconds=SECONDS)
        assert ". cpu" in log.read_text() or "cpu " in log.read_text()  # Celery's banner lists its queues
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)
    assert process.returncode == 0


def test_the_tunnel_is_one_that_ssh_understands() -> None:
    (command,) = (each.text for page in PAGES for each in in_text(page) if each.program == "ssh")
    if shutil.which("ssh") is None:
        pytest.skip("ssh is not installed here")
    words = shlex.split(command.replace("HOST", "host.example.com"))
    told = subprocess.run([words[0], "-G", *words[1:]], capture_output=True, text=True, timeout=20, check=True).stdout
    assert "localforward 5555 [127.0.0.1]:5555" in told


@pytest.mark.parametrize("page", PAGES)
def test_every_command_on_a_page_is_run_by_a_test(page: str) -> None:
    """Blocks of shell and what is docker's by tests/containers, line by line, and kubectl's by test_kubectl.py."""
    assert languages(page) <= {"sh", *NO_COMMANDS}
    for command in commands(page):
        if command.in_text and command.program not in ("docker", "kubectl", "ssh", "surefoot", "surefoot-worker"):
            file, test = ELSEWHERE[command.text]
            assert f"def {test}(" in (ROOT / "tests" / file).read_text()
    runs_all_of_it = f'blocks("{page}")', f'in_text("{page}")'
    folder = ROOT / "tests" / "containers"
    texts = [(folder / file).read_text() for file in ("test_operating.py", "test_deploy_page.py")]
    assert sum(all(word in text for word in runs_all_of_it) for text in texts) == 1
