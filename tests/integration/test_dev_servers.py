"""The development servers: what runs, under which settings, and who may run it."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import psycopg2
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.integration.parents import (
    address_of,
    assert_remembered,
    lives,
    parent,
    remember,
    running_in,
    sql,
    until,
    valkey_at,
)
from worker.dev import _server
from worker.dev._held import FolderLock
from worker.dev.servers import FolderInUse, Postgres, Valkey, servers

# ── What runs ────────────────────────────────────────────────────────────────────────────────────────────


def test_both_servers_run_with_the_durable_settings_that_are_promised(tmp_path: Path) -> None:
    with servers(tmp_path / "new ☃ '50%'" / ".surefoot") as running:
        shown = {
            name: sql(running.database_url, f"SHOW {name}")
            for name in ("fsync", "synchronous_commit", "full_page_writes", "max_connections", "server_encoding")
        }
        assert shown == {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "max_connections": "100",
            "server_encoding": "UTF8",
        }
        assert sql(running.database_url, "SHOW shared_preload_libraries") == "pg_stat_statements"
        assert sql(running.database_url, "SELECT datcollate FROM pg_database WHERE datname = current_database()") == "C"
        assert (
            sql(running.database_url, "SELECT count(*) FROM information_schema.tables WHERE table_schema='public'") == 0
        )
        with valkey_at(running.redis_url) as client:
            assert client.config_get("appendonly", "appendfsync", "maxmemory-policy") == {
                "appendonly": "yes",
                "appendfsync": "everysec",
                "maxmemory-policy": "noeviction",
            }
        assert running.folder == tmp_path / "new ☃ '50%'" / ".surefoot"
        assert lives(running.postgres_pid)
        assert lives(running.redis_pid)
    assert not lives(running.postgres_pid)
    assert not lives(running.redis_pid)


def test_data_and_addresses_survive_a_restart(folder: Path) -> None:
    with servers(folder) as first:
        remember(first)
    with servers(folder) as second:
        assert_remembered(second)
        assert (second.database_url, second.redis_url) == (first.database_url, first.redis_url)


def test_a_client_without_the_password_is_refused(folder: Path) -> None:
    with servers(folder) as running:
        for wrong in ("", "wrong"):
            with pytest.raises(psycopg2.OperationalError, match="password"):
                psycopg2.connect(address_of(running.database_url), password=wrong)
        port = int(running.redis_url.rpartition(":")[2].partition("/")[0])
        with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
        for secret in folder.rglob("password"):
            assert secret.stat().st_mode & 0o777 == 0o600
            for server in (running.postgres_pid, running.redis_pid):
                assert secret.read_text().strip() not in Path(f"/proc/{server}/cmdline").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be kept out of being root")
def test_root_gets_servers_that_are_not_root_from_a_checkout_that_only_root_can_enter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "pginstall").symlink_to(Postgres(tmp_path).program.parent.parent)
    monkeypatch.setattr(Postgres, "program", closed / "pginstall/bin/postgres")
    with servers(closed / ".surefoot") as running:
        # The process runs under another uid, or is root without capabilities in a namespace of its own.
        for pid in (running.postgres_pid, running.redis_pid):
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            elsewhere = Path(f"/proc/{pid}/ns/user").readlink() != Path("/proc/self/ns/user").readlink()
            assert elsewhere or status["Uid"].split()[0] != "0"
            assert int(status["CapEff"], 16) in {0, 1 << 1, 1 << 2}


# ── Who may run them ─────────────────────────────────────────────────────────────────────────────────────


def test_a_second_process_in_the_same_folder_is_refused_and_told_who_holds_it(folder: Path) -> None:
    with parent(folder) as holder:
        running = running_in(holder)
        with (
            pytest.raises(FolderInUse, match=f"process {holder.pid}; stop that one first") as refusal,
            servers(folder),
        ):
            pass
        assert refusal.value.pid == holder.pid
        assert sql(running.database_url, "SELECT 1") == 1


def test_a_folder_that_was_let_go_of_is_free_though_a_child_of_the_same_process_still_has_a_copy_of_its_lock(
    tmp_path: Path,
) -> None:
    lock = FolderLock(tmp_path / "lock")
    lock.acquire()
    # As every child has between its fork and its exec, which another thread may begin at any time.
    child = subprocess.Popen(["sleep", "60"], pass_fds=[lock._descriptor or 0])  # noqa: SLF001
    try:
        lock.release()
        again = FolderLock(tmp_path / "lock")
        again.acquire()
        again.release()
    finally:
        child.kill()
        child.wait()


def test_of_many_that_start_in_a_new_folder_at_once_one_runs_and_the_others_are_refused(tmp_path: Path) -> None:
    with parent(tmp_path) as one, parent(tmp_path) as two, parent(tmp_path) as three:
        everyone = {process.pid: process for process in (one, two, three)}
        until(lambda: sum(process.poll() is not None for process in everyone.values()) == 2)
        (holder,) = (process for process in everyone.values() if process.poll() is None)
        assert sql(running_in(holder).database_url, "SELECT 1") == 1
        for process in everyone.values():
            if process is not holder:
                assert process.stderr is not None
                assert f"is in use by process {holder.pid}" in process.stderr.read()


def test_two_folders_started_at_once_get_ports_of_their_own(tmp_path: Path) -> None:
    with parent(tmp_path / "a") as one, parent(tmp_path / "b") as two:
        first, second = running_in(one), running_in(two)
        assert len({first.database_url[-15:], second.database_url[-15:]}) == 2
        assert sql(first.database_url, "SHOW data_directory") == str(tmp_path / "a/postgres/data")
        assert sql(second.database_url, "SHOW data_directory") == str(tmp_path / "b/postgres/data")


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_a_server_that_loses_the_race_for_its_port_takes_another(
    kind: type[Postgres | Valkey], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kind(folder) as server:
        lost = server.port
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind((_server.HOST, lost))
        rival.listen()
        # The look at the port comes before the rival, the bind after it.
        looked = iter([True])
        is_free = _server._is_free  # noqa: SLF001
        monkeypatch.setattr(_server, "_is_free", lambda port: next(looked, None) or is_free(port))
        with kind(folder) as again:
            assert again.port != lost
            assert again.running
