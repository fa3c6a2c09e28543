"""Keys over HTTP: made, shown once, listed, ended. Whoever makes keys says who somebody is: it takes ``admin``."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from producer.api.access import Admin
from producer.api.document import PROBLEMS
from producer.api.shapes import Sent, Shown
from producer.api.strict import StrictRoute
from producer.keys import DEFAULT_RATE
from producer.ledger.keys import Scope

router = APIRouter(prefix="/v1/keys", route_class=StrictRoute, responses=PROBLEMS, tags=["keys"])


class KeyBody(Sent):
    """A key to make."""

    name: str = Field(description="Who or what will have it; approvals know its holder by that.")
    scopes: list[Scope] = Field(description="What it may do; admin is all of it.")
    seconds: float | None = Field(None, gt=0, allow_inf_nan=False, description="Its life; null until it is revoked.")
    rate_per_second: float = Field(DEFAULT_RATE, gt=0, allow_inf_nan=False, description="Of one process of the API.")
    reason: str | None = Field(None, description="For the record.")


class RevokeBody(Sent):
    """A key to end."""

    in_seconds: float = Field(0.0, ge=0, allow_inf_nan=False, description="Later, so that its holder can change over.")
    reason: str | None = Field(None, description="For the record.")


class KeyView(Shown):
    """A key, without what only its holder knows."""

    id: str
    tenant: str
    name: str
    scopes: list[Scope]
    rate_per_second: float
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    standing: Literal["active", "expired", "revoked"]


class KeyMade(Shown):
    """A key as it is on record, and `key` itself, which is shown this once."""

    key: str
    record: KeyView


class Keys(Shown):
    """A tenant's keys, the oldest first; those that ended, too."""

    keys: list[KeyView]


@router.get("")
def keys(caller: Admin) -> Keys:
    """List the tenant's keys."""
    return Keys(keys=[KeyView.model_validate(each) for each in caller.producer.keys.list()])


@router.post("", status_code=201)
def create_key(body: KeyBody, caller: Admin) -> KeyMade:
    """Make a key of the same tenant, and show it: this once, and never again."""
    record, key = caller.producer.keys.create(**body.model_dump(), who=caller.who)
    return KeyMade(key=key, record=KeyView.model_validate(record))


@router.post("/{key_id}/revoke")
def revoke_key(key_id: str, body: RevokeBody, caller: Admin) -> KeyView:
    """End a key, by its id, the part between sf_ and the secret: from its next request on, or later."""
    ended = caller.producer.keys.revoke(key_id, in_seconds=body.in_seconds, who=caller.who, reason=body.reason)
    return KeyView.model_validate(ended)
