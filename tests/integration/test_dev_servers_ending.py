"""The development servers' ends: signals, crashes, and what is left for the next start."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest

from tests.integration.parents import (
    DEADLINE_SECONDS,
    FORKING_PARENT,
    LEAVING_CHILD,
    SURVIVING_INTERRUPT,
    assert_remembered,
    keepers_of,
    lives,
    log_of,
    parent,
    processes_naming,
    remember,
    running_in,
    sql,
    until,
    valkey_at,
)
from worker.dev.servers import NotStarted, Postgres, ServerFailed, Valkey, servers

# ── How they end ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)])
def test_a_signal_to_the_parents_group_stops_both_cleanly(signum: signal.Signals, code: int, folder: Path) -> None:
    with parent(folder) as process:
        running = running_in(process)
        os.killpg(process.pid, signum)  # the whole group, as a terminal does
        assert process.wait(DEADLINE_SECONDS) == code
        assert not lives(running.postgres_pid)
        assert not lives(running.redis_pid)
        assert "database system is shut down" in log_of(folder, "postgres")
        assert "ready to exit" in log_of(folder, "valkey")


def test_a_terminals_interrupt_that_the_block_survives_does_not_reach_the_servers(folder: Path) -> None:
    with parent(folder, SURVIVING_INTERRUPT) as process:
        running = running_in(process)
        os.killpg(process.pid, signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "survived\n"
        assert sql(running.database_url, "SELECT 1") == 1
        with valkey_at(running.redis_url) as client:
            assert client.ping()
        assert "shutdown request" not in log_of(folder, "postgres")


def test_an_interrupt_while_they_start_leaves_no_process(tmp_path: Path) -> None:
    with parent(tmp_path) as process:
        until(lambda: any(tmp_path.glob("postgres/data.new-*")))
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_SECONDS)
        until(lambda: not processes_naming(tmp_path, but=process.pid))


def test_an_exception_in_the_block_stops_both_and_is_raised(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), servers(folder) as running:
        _ = 1 / 0
    assert not lives(running.postgres_pid)
    assert not lives(running.redis_pid)


def test_after_a_killed_parent_the_next_start_finds_the_data(folder: Path) -> None:
    with parent(folder) as process:
        running = running_in(process)
        remember(running)
        process.kill()
        process.wait()
        # At once, while the keepers of the old run are still stopping their servers.
        with servers(folder) as again:
            assert_remembered(again)
            assert not lives(running.postgres_pid)
            assert not lives(running.redis_pid)


def test_a_killed_parent_takes_its_servers_along_though_a_forked_child_lives_on(folder: Path) -> None:
    with parent(folder, FORKING_PARENT) as process:
        running = running_in(process)
        process.kill()
        process.wait()
        until(lambda: not lives(running.postgres_pid) and not lives(running.redis_pid))
        assert "database system is shut down" in log_of(folder, "postgres")
        with servers(folder) as again:
            assert sql(again.database_url, "SELECT 1") == 1


def test_servers_that_outlive_their_parent_and_keepers_are_ended_by_the_next_start(folder: Path) -> None:
    said: list[str] = []
    with parent(folder) as process:
        running = running_in(process)
        remember(running)
        keepers = keepers_of(running)
        for keeper in keepers:  # one that saw its parent die would end its server, if it was given the time
            os.kill(keeper, signal.SIGSTOP)
        for pid in (process.pid, *keepers):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        assert lives(running.postgres_pid)
        with servers(folder, log=said.append) as again:
            assert_remembered(again)
            assert not lives(running.postgres_pid)
            assert not lives(running.redis_pid)
    assert any(f"an earlier run left behind (pid {running.postgres_pid}" in line for line in said)


def test_a_keeper_that_is_killed_leaves_a_server_that_stop_still_ends(folder: Path) -> None:
    with servers(folder) as running:
        for keeper in keepers_of(running):
            os.kill(keeper, signal.SIGKILL)
        assert sql(running.database_url, "SELECT 1") == 1
    assert not lives(running.postgres_pid)
    assert not lives(running.redis_pid)


def test_a_folder_deleted_under_running_servers_still_lets_them_end(tmp_path: Path) -> None:
    with servers(tmp_path / "gone") as running:
        shutil.rmtree(tmp_path / "gone")
    assert not lives(running.postgres_pid)
    assert not lives(running.redis_pid)
    with servers(tmp_path / "gone") as anew:
        assert sql(anew.database_url, "SELECT 1") == 1


def test_a_child_forked_in_the_block_cannot_stop_the_servers(folder: Path) -> None:
    with parent(folder, LEAVING_CHILD) as process:
        running = running_in(process)
        assert sql(running.database_url, "SELECT 1") == 1
        with valkey_at(running.redis_url) as client:
            assert client.ping()


def test_sigterm_is_left_to_whoever_handles_it_already(folder: Path) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with servers(folder):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with servers(folder):
            assert callable(signal.getsignal(signal.SIGTERM))
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_stop_and_kill_are_safe_before_a_start_and_twice(kind: type[Postgres | Valkey], folder: Path) -> None:
    server = kind(folder)
    server.stop()
    server.kill()
    with pytest.raises(NotStarted, match="call start"):
        _ = server.url
    server.start()
    server.start()
    pid = server.pid
    server.stop()
    server.stop()
    server.kill()
    assert not server.running
    assert not lives(pid)


# ── What a crash leaves ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("whole_tree", [True, False], ids=["kill()", "SIGKILL to the postmaster alone"])
def test_a_killed_postgres_restarts_on_its_port_with_its_data(whole_tree: bool, folder: Path) -> None:  # noqa: FBT001
    with Postgres(folder) as postgres:
        url, pid = postgres.url, postgres.pid
        sql(url, "CREATE TABLE kept AS SELECT 42 AS answer")
        # A backend in a loop does not notice its postmaster's death, and holds the shared memory.
        with closing(psycopg2.connect(url.replace("+psycopg2", ""), async_=True)) as busy:
            until(lambda: busy.poll() == psycopg2.extensions.POLL_OK)
            busy.cursor().execute("DO $$ BEGIN LOOP END LOOP; END $$")
            until(lambda: sql(url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO%'") == 1)
            if whole_tree:
                postgres.kill()
            else:
                os.kill(pid, signal.SIGKILL)
                until(lambda: not postgres.running)
            postgres.start()
        assert (postgres.url, postgres.running) == (url, True)
        assert postgres.pid != pid
        assert sql(url, "SELECT answer FROM kept") == 42


def test_a_killed_valkey_restarts_on_its_port_with_its_data(tmp_path: Path) -> None:
    with Valkey(tmp_path) as valkey:
        url = valkey.url
        with valkey_at(url) as client:
            client.set("kept", "42")
        valkey.kill()
        assert not valkey.running
        valkey.start()
        assert valkey.url == url
        with valkey_at(url) as client:
            assert client.get("kept") == "42"


def test_a_half_made_database_folder_is_made_anew(tmp_path: Path) -> None:
    with parent(tmp_path) as process:
        until(lambda: any(tmp_path.glob("postgres/data.new-*/PG_VERSION")))
        (unfinished,) = tmp_path.glob("postgres/data.new-*")
        for pid in (process.pid, *processes_naming(unfinished, but=process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    assert unfinished.exists()
    assert not (tmp_path / "postgres/data").exists()
    with servers(tmp_path) as running:
        assert sql(running.database_url, "SELECT 1") == 1
    assert not unfinished.exists()


def test_a_stale_pid_file_that_names_a_stranger_neither_stops_the_start_nor_hurts_the_stranger(folder: Path) -> None:
    with Postgres(folder) as postgres:
        sql(postgres.url, "CREATE TABLE kept AS SELECT 42 AS answer")
        data = folder / "postgres/data"
        # Of the server's own user: Postgres takes any such process for a living postmaster.
        user = data.stat().st_uid if os.geteuid() == 0 else None
        with subprocess.Popen(["sleep", "60"], user=user) as stranger:
            try:
                postgres.kill()
                _, _, rest = (data / "postmaster.pid").read_text().partition("\n")
                (data / "postmaster.pid").write_text(f"{stranger.pid}\n{rest}")
                postgres.start()
                assert sql(postgres.url, "SELECT answer FROM kept") == 42
                assert stranger.poll() is None
            finally:
                stranger.kill()


def test_a_server_that_dies_while_starting_is_reported_with_the_end_of_its_log(folder: Path) -> None:
    with Postgres(folder) as postgres:
        pass
    with (folder / "postgres/data/postgresql.conf").open("a") as conf:
        conf.write("nonsense\n")
    with pytest.raises(ServerFailed, match="syntax error") as failure:
        postgres.start()
    assert failure.value.server == "Postgres"
    assert failure.value.log_path == folder / "postgres/log"
    assert not postgres.running
