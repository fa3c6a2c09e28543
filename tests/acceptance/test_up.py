"""`surefoot up`: all of it in one terminal, and nothing of it once that is closed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from producer import HttpProducer
from producer.cli import main
from tests.houses import ROOT, STOP_SECONDS, until
from worker.dev.up import up

ACTIONS = '''
from tasks import action


@action("greeting.write", effect="pure")
def write(name: str) -> str:
    """Greet somebody."""
    return f"Good day, {name}"
'''


@contextlib.contextmanager
def upped(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """All of it, up, and what it said."""
    (folder / "greetings.py").write_text(ACTIONS)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    log = folder / "up.log"
    command = [str(Path(sys.executable).with_name("surefoot")), "up", "--actions", "greetings", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)

    def said() -> str:
        text = log.read_text()
        assert process.poll() is None, text
        return text if "Ctrl-C ends all of it." in text else ""

    try:
        yield process, until(said, seconds=90)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_SECONDS)


def typed_as_told(said: str, folder: Path) -> str:
    """What the command does that is printed for other terminals."""
    (source,) = re.findall(r"(source \S+/env)$", said, re.MULTILINE)
    (command,) = re.findall(r"^ +(surefoot enqueue .*)$", said, re.MULTILINE)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    typed = ["bash", "-c", f"{source} && {command}"]
    done = subprocess.run(
        typed, cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout


def pools(flower: str, user: tuple[str, str]) -> list[str]:
    """The pools of all workers, as `celery inspect stats` tells of them."""

    def told() -> list[str]:
        answer = httpx.get(f"http://{flower}/api/workers", params={"refresh": 1}, auth=user, timeout=20).json()
        return [worker["stats"]["pool"]["implementation"] for worker in answer.values() if "stats" in worker]

    return until(told)


def descendants(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def living(processes: list[psutil.Process]) -> list[str]:
    """The command lines of those that live. One that ends between two of the questions here is not among them."""
    lines = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                lines.append(" ".join(process.cmdline()))
    return lines


@pytest.mark.timeout(180)
def test_everything_is_up_at_the_addresses_it_prints_and_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    with upped(tmp_path) as (process, said):
        api = re.search(r"API +(http://\S+)", said)
        key = re.search(r"sign in with (sf_\S+)", said)
        flower = re.search(r"Flower +http://(\w+):(\S+)@(\S+)", said)
        assert api is not None
        assert key is not None
        assert flower is not None
        remote = HttpProducer(api[1], key=key[1])
        assert remote.enqueue("greeting.write", {"name": "Ada"}, idempotency_key="ada").get(30) == "Good day, Ada"
        remote.close()
        with httpx.Client(base_url=api[1], headers={"Sec-Fetch-Site": "same-origin"}, follow_redirects=True) as browser:
            shown = browser.post("/console/sign-in", data={"key": key[1]})
            assert "Overview" in shown.text
            assert flower[3] in shown.text
        assert httpx.get(f"http://{flower[3]}/", auth=(flower[1], flower[2])).status_code == 200
        assert httpx.get(f"http://{flower[3]}/").status_code == 401
        assert pools(flower[3], (flower[1], flower[2])) == ["worker.pool:TaskPool"]  # nobody has named one
        assert "succeeded" in typed_as_told(said, tmp_path)
        environment = (tmp_path / ".surefoot" / "demo" / "env").read_text()
        assert f"SUREFOOT_API_URL={api[1]}" in environment
        all_of_it = descendants(process)
        assert len(all_of_it) > 5
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    until(lambda: not living(all_of_it))


@pytest.mark.timeout(180)
def test_killed_it_leaves_nothing_behind_either(tmp_path: Path) -> None:
    with upped(tmp_path) as (process, _):
        all_of_it = descendants(process)
        process.kill()
        process.wait(STOP_SECONDS)
    until(lambda: not living(all_of_it), seconds=60)


@pytest.mark.timeout(180)
def test_where_one_part_ends_the_others_do_not_go_on_as_if_nothing_were(tmp_path: Path) -> None:
    with upped(tmp_path) as (process, _):
        all_of_it = descendants(process)
        serving = [
            each for each in all_of_it if each.cmdline()[-1:] == ["api"] and "_lifeline" not in str(each.cmdline())
        ]
        for each in serving:
            each.kill()
        assert process.wait(60) == 2
    assert "the API has ended" in (tmp_path / "up.log").read_text()
    until(lambda: not living(all_of_it))


def test_up_is_found_though_the_producer_knows_nothing_of_workers() -> None:
    context = main.make_context("surefoot", [], resilient_parsing=True)
    assert main.get_command(context, "up") is up
    assert "up" in main.list_commands(context)
