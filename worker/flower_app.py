"""The Celery app that Flower runs with: the broker alone, whose events it shows.

Without actions, without a result backend and so without Postgres: results may hold what its users have no business
with.
"""

from __future__ import annotations

from celery import Celery

from producer.broker import celery_url, is_redis, queue_type, transport_options
from producer.settings import Settings

# Flower is told where the broker is, and not where the ledger is.
_settings = Settings.from_env(database_url="postgresql://none")

app = Celery("surefoot-flower", broker=celery_url(_settings.redis_url))
app.conf.update(
    # Outlasts BRPOP's own second, as a worker's does.
    broker_transport_options=transport_options(_settings.redis_url, 3.0)
    | ({"socket_timeout": 30.0} if is_redis(_settings.redis_url) else {}),
    task_default_queue_type=queue_type(_settings.redis_url),
    broker_connection_max_retries=None,
    accept_content=["json"],
    task_default_queue=_settings.queue,  # whose length it shows
    result_backend="disabled://",
)
