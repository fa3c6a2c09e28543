"""Celery's names for Surefoot's settings. Each line says why it is so; the values come from one settings object.

Found by Celery through `worker.app` when it runs in this folder. Never shipped in the wheel: a package that
installs a module of this name would configure its host's Celery.
"""

from __future__ import annotations

from producer.broker import celery_url as _celery_url
from producer.broker import is_redis as _is_redis
from producer.broker import queue_type as _queue_type
from producer.broker import transport_options as _transport_options
from worker.settings import WorkerSettings as _WorkerSettings

# Celery takes every name without an underscore for a setting, and Flower shows it.
_settings = _WorkerSettings.from_env()

# The broker is a doorbell: everything that must survive is in Postgres.
broker_url = _celery_url(_settings.redis_url)
# A worker that outlives a Redis restart must not give up on it, neither at the start nor later (default: 100 tries).
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# READONLY and UNBLOCKED after a failover are channel errors; without this they end the worker.
broker_channel_error_retry = True
# An acquire that waits for ever would hold a job's lease for ever.
broker_pool_acquire_timeout = 5
broker_transport_options = {
    **_transport_options(_settings.redis_url, 3.0),
    # Redis's outlasts BRPOP's own second; a dead TCP peer is noticed instead of waited for.
    **({"socket_timeout": 30.0} if _is_redis(_settings.redis_url) else {}),
}
# A dead peer of RabbitMQ's is noticed by these; it asks twice in so many seconds. Redis has its own.
broker_heartbeat = None if _is_redis(_settings.redis_url) else 10
# On RabbitMQ rings wait in quorum queues, which outlive any one of its nodes.
task_default_queue_type = _queue_type(_settings.redis_url)
task_create_missing_queue_type = _queue_type(_settings.redis_url)
# Without the step that makes 28 queues for messages due later, as soon as there is a quorum queue: we send none.
worker_consumer = "worker.consumer:Consumer"
# The ring is acknowledged after the attempt settled: a worker that dies leaves it to be handed out again.
task_acks_late = True
# An action that fails has been settled as failed in the ledger; ringing it again is the ledger's decision.
task_acks_on_failure = True
# One ring per free slot: what a worker holds in reserve, others cannot do.
worker_prefetch_multiplier = 1
# Only JSON, on the way in and out: a pickled message is refused, not run.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
# AsyncResult reads the ledger, where the runner has written the outcome in the job's own transaction.
result_backend = "worker.backend:LedgerBackend"
# The claim is the started record; a second one would cost a write per job.
task_track_started = False
# Rings without a queue of their own go where workers listen by default.
task_default_queue = _settings.queue
# Flower's view: workers report what they do, producers what they asked for.
worker_send_task_events = True
task_send_sent_event = True
# structlog writes every line; Celery must neither take the root logger nor turn prints into log lines.
worker_hijack_root_logger = False
worker_redirect_stdouts = False
# SIGTERM waits for what runs, however long it takes. Where SIGQUIT is sent (or REMAP_SIGTERM=SIGQUIT is set), a
# worker waits this long, then hands back the rings of what still runs.
worker_soft_shutdown_timeout = _settings.soft_shutdown_seconds
worker_enable_soft_shutdown_on_idle = False
# Cancelling a paid model call because Redis blinked would waste it; the lease makes a repeat harmless.
worker_cancel_long_running_tasks_on_connection_loss = False
# Flower's inspect and control need it; switch it off where Redis is not trusted.
worker_enable_remote_control = True
