"""What a child of a prefork worker makes of a ring of many while no broker can be reached."""

from __future__ import annotations

from types import SimpleNamespace
from uuid import uuid4

import pytest

from producer.ring import Bell
from worker import singly

JOBS = [uuid4() for _ in range(3)]


@pytest.mark.parametrize("is_child", [True, False])
def test_what_cannot_be_rung_for_is_performed_here(monkeypatch: pytest.MonkeyPatch, *, is_child: bool) -> None:
    monkeypatch.setattr(singly, "current_process", lambda: SimpleNamespace(daemon=is_child))
    bell = Bell("redis://127.0.0.1:1/0", timeout_seconds=0.5)
    assert singly.not_rung_singly(bell, "test.add", JOBS, {"routing_key": "actions", "priority": 5}) == JOBS
    bell.close()
