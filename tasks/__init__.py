"""What can be done. Add a file with functions under `@action` here, or name your own modules in a setting.

The names below are all that an action needs:

    from tasks import Context, action

    @action("crm.note", effect="keyed", key_ttl=86_400)
    def note(customer: str, text: str, ctx: Context) -> int:
        '''Write a note into the customer's file.'''
"""

from tasks._context import Context
from tasks._outcomes import ActionError, Hold, Refused, Retry, Unknown
from tasks._registry import action, load
from tasks._schedules import DeclaredSchedule, declared_schedules, schedule
from tasks._signature import InvalidAction
from tasks._spec import RING_SIZE, ActionSpec, EffectClass, Policy
from tasks._turn import Turn
from tasks._verify import CannotTell, DidNotHappen, Happened

__all__ = [
    "RING_SIZE",
    "ActionError",
    "ActionSpec",
    "CannotTell",
    "Context",
    "DeclaredSchedule",
    "DidNotHappen",
    "EffectClass",
    "Happened",
    "Hold",
    "InvalidAction",
    "Policy",
    "Refused",
    "Retry",
    "Turn",
    "Unknown",
    "action",
    "declared_schedules",
    "load",
    "schedule",
]
