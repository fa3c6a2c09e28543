"""An action that has its worker never be given a ring again, as a reset connection does."""

from __future__ import annotations

from tasks import action


@action("deaf.become", effect="pure")
def become() -> None:
    """Stop asking the broker for messages; everything else goes on."""
    from worker.app import parts  # noqa: PLC0415  the app loads this module

    parts().canary._channel._brpop_start = lambda *_, **__: None  # noqa: SLF001  what the defect comes to
