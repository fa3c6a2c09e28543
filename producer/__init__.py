"""Surefoot's producer side: asks for actions, decides and looks. All that another service installs.

The names below load on first use, so that importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from producer.client import Producer
    from producer.conversation import Conversation, Message
    from producer.envelope import Request
    from producer.errors import (
        ConversationNotFound,
        IdempotencyConflict,
        InvalidRequest,
        InvalidSchedule,
        JobFailed,
        JobNotFound,
        JobNotInDoubt,
        JobUnfinished,
        LedgerUnavailable,
        RequestRefused,
        ScheduleExists,
        ScheduleNotFound,
        SettingsError,
        SurefootError,
        UnknownAction,
    )
    from producer.job import Job
    from producer.ledger.states import State
    from producer.settings import Settings

__all__ = [
    "Conversation",
    "ConversationNotFound",
    "IdempotencyConflict",
    "InvalidRequest",
    "InvalidSchedule",
    "Job",
    "JobFailed",
    "JobNotFound",
    "JobNotInDoubt",
    "JobUnfinished",
    "LedgerUnavailable",
    "Message",
    "Producer",
    "Request",
    "RequestRefused",
    "ScheduleExists",
    "ScheduleNotFound",
    "Settings",
    "SettingsError",
    "State",
    "SurefootError",
    "UnknownAction",
]

_HOMES = {
    "Conversation": "producer.conversation",
    "Job": "producer.job",
    "Message": "producer.conversation",
    "Producer": "producer.client",
    "Request": "producer.envelope",
    "Settings": "producer.settings",
    "State": "producer.ledger.states",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'producer' has no attribute {name!r}")
    return getattr(import_module(_HOMES.get(name, "producer.errors")), name)
