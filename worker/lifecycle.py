"""What a worker does beside performing: when it starts, when it stops, and when Celery hands it something odd."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

from billiard import current_process
from celery import signals
from celery.worker import state as worker_state
from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer.ledger.revision import REVISION, revision_of
from producer.spans import OTLP, export
from tasks import ActionSpec, declared_budgets, declared_rules, declared_schedules
from tasks._dependency import dependency_named
from worker import breakers, limits, policies
from worker.declare import publish_budgets, publish_schedules
from worker.log import configure, log
from worker.meter import count_with
from worker.published import publish_policies
from worker.settings import NOWHERE
from worker.stopping import is_stopping

# Celery gives its children no longer, either.
FLUSH_SECONDS = 1.0

PUBLISH = text("""
INSERT INTO actions (name, version, effect, queue, description, params_schema, result_schema, policy)
SELECT name, version, effect, queue, description, params_schema, result_schema, policy
FROM json_to_recordset(CAST(:actions AS json)) AS a(name text, version int, effect text, queue text, description text,
  params_schema json, result_schema json, policy json)
ORDER BY name
ON CONFLICT (name) DO UPDATE SET version = excluded.version, effect = excluded.effect, queue = excluded.queue,
  description = excluded.description, params_schema = excluded.params_schema, result_schema = excluded.result_schema,
  policy = excluded.policy, published_at = clock_timestamp()
WHERE actions.version <= excluded.version
""")


def publish(connection: Connection, actions: list[ActionSpec]) -> None:
    """Tell producers what there is. An older version of an action never replaces a newer one's word."""
    connection.execute(PUBLISH, {"actions": json.dumps([_published(spec) for spec in actions])})


def _published(spec: ActionSpec) -> dict[str, Any]:
    dependency = spec.dependency if isinstance(spec.dependency, str) else "by params"
    breaker = dependency_named(spec.dependency).published() if isinstance(spec.dependency, str) else None
    return {
        "name": spec.name,
        "version": spec.version,
        "effect": spec.effect if isinstance(spec.effect, str) else "by params",
        "queue": spec.queue,
        "description": spec.description,
        "params_schema": spec.params.json_schema(),
        "result_schema": spec.result.json_schema(mode="serialization"),
        "policy": spec.policy.published()
        | spec.limits.published()
        | {
            "key_ttl": spec.key_ttl,
            "verify_after": spec.verify and spec.verify.after,
            "fallback": spec.fallback and spec.fallback.place,
            "supersede_after": spec.supersede_after,
            "conversation": spec.conversation,
            "undo": spec.undo,
            "costs": spec.cost is not None,
        }
        | {"dependency": dependency, "breaker": breaker, "on_open": spec.on_open, "ring_size": spec.ring_size},
    }


@signals.setup_logging.connect(weak=False)
def _set_up_logging(**_: Any) -> None:
    from worker.app import settings  # noqa: PLC0415  the app imports this module

    configure(settings.log, settings.log_level)


def _or_not_at_all(step: Callable[[], None]) -> Callable[..., None]:
    """Make a step of the start one without which the worker ends, so that its supervisor starts it anew.

    Celery logs what a signal's receiver raises and goes on: a worker without its relay would look healthy for good.
    """

    @wraps(step)
    def run(**_: Any) -> None:
        try:
            step()
        except Exception as error:
            log.error("worker.not_started", step=step.__name__.strip("_"), error=str(error), exc_info=True)
            raise SystemExit(1) from error

    return run


# Celery asks for the logging only later; what refuses to start must be able to say so.
signals.worker_init.connect(_set_up_logging, weak=False)


@signals.worker_init.connect(weak=False)
@_or_not_at_all
def _refuse_a_wrong_start() -> None:
    """Stop before the first job where the settings or the schema cannot work, with the command that mends it."""
    from worker.app import actions, parts, settings  # noqa: PLC0415  the app imports this module

    for error in settings.errors():
        log.error("settings.refused", error=error)
        raise SystemExit(error)
    for warning in (
        *settings.warnings(),
        *limits.doubts(settings.redis_url, actions),
        *breakers.doubts(settings.redis_url, actions),
        *policies.doubts(actions, declared_rules().values()),
    ):
        log.warning("settings.doubtful", warning=warning)
    revision = revision_of(parts().engine)
    if revision is None or revision < REVISION:
        message = (
            f"the ledger's schema is {revision or 'not there'}, this worker needs {REVISION}: run surefoot migrate"
        )
        log.error("schema.behind", revision=revision, needed=REVISION)
        raise SystemExit(message)


@signals.worker_init.connect(weak=False)
def _begin_to_count(sender: Any = None, **_: Any) -> None:
    from worker.app import parts, settings  # noqa: PLC0415  the app imports this module

    if settings.metrics_address == NOWHERE:
        return
    from worker.exporter import begin_to_count  # noqa: PLC0415  half of what Celery takes to load, and often unwanted

    canary = parts().canary
    begin_to_count(
        settings.metrics_address,
        worker=sender,
        lives=lambda: not canary.is_deaf,
        ready=lambda: canary.has_begun and not is_stopping(),
    )


@signals.worker_init.connect(weak=False)
@_or_not_at_all
def _begin_to_trace() -> None:
    from worker.app import settings  # noqa: PLC0415  the app imports this module

    if settings.traces == OTLP:
        export("surefoot-worker", settings.traces)
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor  # noqa: PLC0415  an extra

        # What actions call over httpx, models' clients included, is a span of its own, whose id goes along.
        HTTPXClientInstrumentor().instrument()


@signals.worker_process_init.connect(weak=False)
def _count_in_child(**_: Any) -> None:
    from worker.app import settings  # noqa: PLC0415  the app imports this module

    if settings.metrics_address != NOWHERE:
        from worker.metrics import counting_in_child  # noqa: PLC0415  as above

        count_with(counting_in_child(current_process().index))  # type: ignore[attr-defined]  # a pool's has one


@signals.worker_process_init.connect(weak=False)
@signals.worker_ready.connect(weak=False)
def spare_what_is_loaded(**_: Any) -> None:
    """Have the garbage collector leave alone what is there now, and look through the rest as often as that asks for."""
    # A full collection goes over all that lives, 120,000 objects of modules and classes among it: 75 ms on a slow
    # machine, in which no attempt, renewal or message gets on. Hardly any of these is garbage before the process ends.
    gc.freeze()
    # The next full one comes once a quarter of what the last one went over is new. Without this one, which finds
    # nothing, that would be 30,000 objects; of what Celery keeps of errors, 10,000 of them held 40 MiB.
    gc.collect()


@signals.worker_ready.connect(weak=False)
@_or_not_at_all
def _start() -> None:
    from worker.app import actions, parts, settings  # noqa: PLC0415  the app imports this module

    with parts().engine.connect() as connection:
        publish_policies(connection, declared_rules().values())  # first: what is known to be there is guarded
        publish(connection, list(actions.values()))
        publish_budgets(connection, declared_budgets().values())
        publish_schedules(
            connection, declared_schedules().values(), tenant=settings.tenant, imported=sys.modules.keys()
        )
    parts().alerts.start()
    parts().anchors.start()
    parts().relay.start()
    parts().canary.start()
    log.info("worker.started", actions=len(actions))


@signals.worker_shutting_down.connect(weak=False)
def _stop(sig: str = "", how: str = "", **_: Any) -> None:
    from worker.app import parts  # noqa: PLC0415  the app imports this module

    log.info("worker.stopping", signal=sig, how=how)
    parts().canary.stop()
    parts().relay.stop()
    parts().alerts.stop()
    parts().anchors.stop()


@signals.task_revoked.connect(weak=False)
def _revoked(request: Any = None, terminated: bool = False, **_: Any) -> None:  # noqa: FBT001, FBT002  Celery's
    # Whoever revokes names a ring; the job stands, and its next ring may have the same id. Celery would drop that, too.
    worker_state.revoked.discard(request.id)
    log.warning("ring.revoked", ring=request.id, action=request.task, terminated=terminated)


@signals.worker_process_shutdown.connect(weak=False)
def _end_child(**_: Any) -> None:
    from worker.app import parts  # noqa: PLC0415  the app imports this module

    # A child of prefork ends without Python's own end: its last words would be lost.
    parts().runner.announcer.close()
    parts().bell.flush(FLUSH_SECONDS)


@signals.task_unknown.connect(weak=False)
def _unknown(name: str = "", id: str = "", **_: Any) -> None:  # noqa: A002  Celery's keyword
    # A rolling deploy is the usual cause. The job stays queued, and the relay rings it again later.
    log.error("ring.unknown_action", action=name, job_id=id)


@signals.task_rejected.connect(weak=False)
def _rejected(message: Any = None, **_: Any) -> None:
    log.error("ring.undecodable", content_type=getattr(message, "content_type", None))
