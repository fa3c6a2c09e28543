"""Roles over HTTP: who is one of those whom policies name by what they are. Giving them takes ``admin``."""

from __future__ import annotations

from fastapi import APIRouter

from producer.api.access import Admin, Reader
from producer.api.approval_shapes import Grants, RoleBody, RoleTaken
from producer.api.document import PROBLEMS
from producer.api.strict import StrictRoute

router = APIRouter(prefix="/v1/roles", route_class=StrictRoute, responses=PROBLEMS, tags=["roles"])


@router.get("")
def roles(caller: Reader) -> Grants:
    """Return who has which role, by role."""
    return Grants(grants=list(caller.producer.roles.list()))


@router.post("/grant")
def grant_role(body: RoleBody, caller: Admin) -> Grants:
    """Give somebody a role, and return who has which then; one that he has stays as it is."""
    caller.producer.roles.grant(body.role, body.person, who=caller.who)
    return Grants(grants=list(caller.producer.roles.list()))


@router.post("/revoke")
def revoke_role(body: RoleBody, caller: Admin) -> RoleTaken:
    """Take a role from somebody; what he decided stands."""
    return RoleTaken(had=caller.producer.roles.revoke(body.role, body.person, who=caller.who))
