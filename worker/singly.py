"""Rings of many that reach a child of a prefork worker, which would keep one core busy with all of their jobs.

Its siblings would wait meanwhile, as would every other job: a worker counts what it has taken up in jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from billiard import current_process

from producer.ring import Bell, Ring, ahead


def not_rung_singly(bell: Bell, action: str, job_ids: Sequence[UUID], delivery: Mapping[str, Any]) -> Sequence[UUID]:
    """Have each of a ring's jobs rung for alone; return those that are to be performed here.

    That is all of them where this process is no such child, or where the ring names one; else what could not be rung
    for. They go ahead of the queue, which they have been through: behind it they would look lost, to whoever serves
    what was accepted later. A child that dies in the midst leaves its message to be delivered anew, and who rings twice
    costs a look.

    Args:
        bell: Of this process.
        action: The jobs' action.
        job_ids: As the ring named them.
        delivery: Celery's ``delivery_info`` of the ring: the queue and the priority that it came by.
    """
    if not job_ids[1:] or not current_process().daemon:
        return job_ids
    queue, priority = str(delivery["routing_key"]), ahead(bell.priority_of(delivery.get("priority") or 0))
    # What a ring of one says beside that is for people, and stands in the ledger.
    told = f"unknown: one of a ring of {len(job_ids)}"
    return [ring.job_id for ring in bell.ring_now(Ring(each, action, queue, priority, "", told) for each in job_ids)]
