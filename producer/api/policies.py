"""Policies over HTTP. They are the whole installation's, so to have one needed no more takes ``admin``."""

from __future__ import annotations

from fastapi import APIRouter

from producer.api.access import Admin, Caller, Reader
from producer.api.document import PROBLEMS
from producer.api.shapes import Policies, RetireBody
from producer.api.strict import StrictRoute

router = APIRouter(prefix="/v1/policies", route_class=StrictRoute, responses=PROBLEMS, tags=["policies"])


@router.get("")
def policies(caller: Reader) -> Policies:
    """Return the policies that a worker has to have loaded to perform what they are asked about, by name."""
    return _in_force(caller)


@router.post("/retire")
def retire_policy(body: RetireBody, caller: Admin) -> Policies:
    """Have nobody need a policy any more that no code declares, and return those that are needed then."""
    caller.producer.policies.retire(body.name, reason=body.reason, who=caller.who)
    return _in_force(caller)


def _in_force(caller: Caller) -> Policies:
    return Policies(policies=list(caller.producer.policies.list()))
