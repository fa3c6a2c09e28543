"""How a worker is started: on the asyncio pool, unless somebody names another one."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module

import pytest
from celery.concurrency.base import BasePool
from click.testing import CliRunner

from worker.cli import main
from worker.start import CONCURRENCY, POOL_ENVIRONMENT, worker_command

CELERY = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--without-gossip", "--without-mingle"]


@pytest.mark.parametrize("options", [[], ["--queues", "cpu"], ["-Q", "cpu", "--pool-of-mine=1"]], ids=" ".join)
def test_a_worker_that_no_pool_is_named_for_has_the_asyncio_one_with_room_for_hundreds(options: list[str]) -> None:
    command = worker_command(options)
    assert command == [*CELERY, "--pool", "custom", "--concurrency", str(CONCURRENCY), *options]


@pytest.mark.parametrize("options", [["-c", "5"], ["-c5"], ["--concurrency", "5"], ["--concurrency=5"]], ids=" ".join)
def test_how_much_it_has_room_for_is_said_once(options: list[str]) -> None:
    assert worker_command(options) == [*CELERY, "--pool", "custom", *options]


@pytest.mark.parametrize(
    "options", [["--pool", "prefork"], ["--pool=threads"], ["-P", "prefork"], ["-Pthreads"]], ids=" ".join
)
def test_whoever_names_a_pool_has_that_one_with_celery_s_own_room(options: list[str]) -> None:
    assert worker_command(options) == [*CELERY, *options]


def test_the_pool_that_celery_finds_by_its_environment_is_one() -> None:
    module, _, name = POOL_ENVIRONMENT["CELERY_CUSTOM_WORKER_POOL"].partition(":")
    assert issubclass(getattr(import_module(module), name), BasePool)


def test_surefoot_worker_start_becomes_that_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[tuple[str, list[str], Mapping[str, str]]] = []
    monkeypatch.setattr("worker.cli.os.execve", lambda *told: became.append(told))
    assert CliRunner().invoke(main, ["start", "--queues", "cpu", "-h"]).exit_code == 0
    ((program, command, environment),) = became
    assert (program, command) == (sys.executable, worker_command(["--queues", "cpu", "-h"]))
    assert environment.items() >= POOL_ENVIRONMENT.items()
