"""`surefoot-worker watch`: looks and tells as a worker's relay does, and performs nothing.

That no worker is alive only somebody else can tell, and that the ledger is away, too. Any number of them may run: one
looks at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from producer.ledger.engine import open_engine
from worker.alerts import Alerts
from worker.duty import Duty
from worker.log import log
from worker.parts import worker_name
from worker.settings import WorkerSettings

PAUSE_SECONDS = 1.0


def watch(settings: WorkerSettings, stopping: threading.Event) -> None:
    """Watch until told to stop; then have at most a few seconds to tell what was being told."""
    alerts = Alerts(settings, who=worker_name(), is_worker=False)
    engine = open_engine(settings.database_url, connections=1, name=f"{worker_name()[:56]} watch")
    alerts.start()
    log.info("watch.started", channels=len(settings.alert_urls))
    away: datetime | None = None

    def answered() -> None:
        nonlocal away
        away = None

    while not stopping.is_set():
        try:
            _look_until_lost(engine, alerts, settings, stopping, answered)
        except SQLAlchemyError as error:
            away = away or datetime.now(UTC)
            seconds = (datetime.now(UTC) - away).total_seconds()
            log.warning("watch.ledger_unreachable", error=str(error), away_seconds=round(seconds, 3))
            if seconds > settings.alert_silent_seconds:
                alerts.ledger(away_since=away)
            stopping.wait(PAUSE_SECONDS)
    alerts.flush()
    engine.dispose()


def _look_until_lost(
    engine: Engine,
    alerts: Alerts,
    settings: WorkerSettings,
    stopping: threading.Event,
    answered: Callable[[], None],
) -> None:
    duty = Duty("alerts", alerts.look, every_seconds=settings.alert_look_seconds)
    with engine.connect() as connection:
        while not stopping.is_set():
            duty.look(connection)
            connection.exec_driver_sql("SELECT 1")  # it answers, whosever turn it is
            answered()
            alerts.ledger(away_since=None)
            stopping.wait(min(PAUSE_SECONDS, settings.alert_look_seconds))
