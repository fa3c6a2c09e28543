"""Dependencies whose breakers never open and whose retries nobody counts: their tests fail on purpose, many at once."""

from __future__ import annotations

from tasks import Dependency, declare


def unbroken(*names: str) -> None:
    """Declare these dependencies so; saying it again changes nothing."""
    for name in names:
        declare(Dependency(name=name, fail_max=None, failure_rate=None, retry_share=None))
