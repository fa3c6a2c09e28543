"""What can be done. Add a file with functions under `@action` here, or name your own modules in a setting.

The names below are all that an action needs:

    from tasks import Context, action

    @action("crm.note", effect="keyed", key_ttl=86_400)
    def note(customer: str, text: str, ctx: Context) -> int:
        '''Write a note into the customer's file.'''
"""

from tasks._budgets import DeclaredBudget, budget, declared_budgets
from tasks._context import Context, Repair
from tasks._cost import Cost
from tasks._dependency import Dependency, declare
from tasks._fallback import Cause
from tasks._outcomes import ActionError, BudgetShort, Hold, InvalidAnswer, Refused, Retry, Unknown
from tasks._policy import Policy
from tasks._registry import action, load
from tasks._rules import Asked, Rule, Said, allow, declared_rules, deny, policy, require_approval, rule
from tasks._schedules import DeclaredSchedule, declared_schedules, schedule
from tasks._signature import InvalidAction
from tasks._spec import RING_SIZE, ActionSpec, EffectClass
from tasks._turn import Turn
from tasks._verify import CannotTell, DidNotHappen, Happened

__all__ = [
    "RING_SIZE",
    "ActionError",
    "ActionSpec",
    "Asked",
    "BudgetShort",
    "CannotTell",
    "Cause",
    "Context",
    "Cost",
    "DeclaredBudget",
    "DeclaredSchedule",
    "Dependency",
    "DidNotHappen",
    "EffectClass",
    "Happened",
    "Hold",
    "InvalidAction",
    "InvalidAnswer",
    "Policy",
    "Refused",
    "Repair",
    "Retry",
    "Rule",
    "Said",
    "Turn",
    "Unknown",
    "action",
    "allow",
    "budget",
    "declare",
    "declared_budgets",
    "declared_rules",
    "declared_schedules",
    "deny",
    "load",
    "policy",
    "require_approval",
    "rule",
    "schedule",
]
