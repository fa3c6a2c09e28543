"""Making good whatever a storm has left broken, so that the drain is that of a healthy house."""

from __future__ import annotations

import signal
from contextlib import suppress

import psutil

from tests.chaos.storm.stage import Stage


def mend(stage: Stage) -> None:
    """Undo every fault; each does that itself, unless something went wrong in its midst."""
    for step in (_servers, _links, _ledger, _world, _crew):
        try:
            step(stage)
        except Exception as error:  # noqa: BLE001  the others are mended all the same
            stage.odd(f"mending, {step.__name__.strip('_')}: {error!r}")


def bring_back(stage: Stage, lane: str) -> None:
    """Start the server of a lane whose fault went wrong in its midst: the next one may be far off, and is another."""
    server = {"postgres": stage.postgres, "redis": stage.valkey}.get(lane)
    try:
        if server is not None:
            server.start()  # does nothing where it runs
    except Exception as error:  # noqa: BLE001  the storm goes on without it
        stage.odd(f"bringing back {lane}: {error!r}")


def _servers(stage: Stage) -> None:
    for pid in (stage.valkey.pid, stage.postgres.pid):
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            process = psutil.Process(pid)
            for each in (process, *process.children(recursive=True)):
                each.resume()
    stage.valkey.start()
    stage.postgres.start()
    with stage.redis() as client:
        client.config_set("maxmemory", "512mb")


def _links(stage: Stage) -> None:
    for link in stage.links.values():
        link.order("heal")


def _ledger(stage: Stage) -> None:
    stage.ask("DROP TRIGGER IF EXISTS storm_slow ON jobs")
    stage.ask("ALTER SYSTEM RESET ALL")
    stage.ask("SELECT pg_reload_conf()")


def _world(stage: Stage) -> None:
    stage.blow()


def _crew(stage: Stage) -> None:
    for place in stage.crew.places:
        if place.member is not None and place.lives:
            place.member.signal_group(signal.SIGCONT)
