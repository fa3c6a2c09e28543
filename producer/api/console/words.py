"""How values are put into words on a page. Everything is made visible and bounded here; the templates escape it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from producer.as_text import as_span, as_text
from producer.controls import visible
from producer.ledger.states import State
from producer.redact import redact

SHORT_LENGTH = 320
# The longest text that a page shows of one value; what is longer is told by its length, and the API has it whole.
LONG_LENGTH = 100_000

# What a state means to somebody who looks, as a colour: the style sheet has one for each.
TONES: Mapping[str, str] = {
    State.SUCCEEDED: "well",
    State.RUNNING: "moving",
    State.CLAIMED: "moving",
    State.QUEUED: "moving",
    State.WAITING: "waiting",
    State.DEGRADED: "waiting",
    State.AWAITING_APPROVAL: "asking",
    State.IN_DOUBT: "badly",
    State.DEAD: "badly",
    State.FAILED: "badly",
    State.REJECTED: "badly",
    "pending": "asking",
    "approved": "well",
    "closed": "well",
    "half-open": "waiting",
    "open": "badly",
}


def finalized(value: Any) -> Any:
    """Return what a template puts into a page, before it is escaped: nothing for None, and nothing invisible."""
    if value is None:
        return ""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def tone(state: str) -> str:
    """Return the class by which a state is coloured."""
    return TONES.get(state, "quiet")


def spoken(word: str) -> str:
    """Return a state or another of our own words as people read it: without underscores."""
    return word.replace("_", " ")


def whole(value: Any) -> str:
    """Return a value as text over several lines, secrets redacted; text as it stands, anything else as JSON."""
    said = as_text(redact(value), indent=2)
    return said if len(said) <= LONG_LENGTH else f"{said[:LONG_LENGTH]}… ({len(said):,} characters)"


def short(value: Any, length: int = SHORT_LENGTH) -> str:
    """Return the beginning of a value on one line, secrets redacted."""
    said = as_text(redact(value))
    return said if len(said) <= length else f"{said[:length]}…"


def moment(at: datetime | None, pattern: str = "%Y-%m-%d %H:%M:%S") -> Markup | str:
    """Return a moment in UTC, with what the script needs to tell it in the reader's own time, and as an age."""
    if at is None:
        return ""
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(f"{at:%Y-%m-%dT%H:%M:%S.%fZ}", f"{at:{pattern}}")


def seconds(number: float | Decimal | None) -> str:
    """Return a duration in the unit that fits."""
    if number is None:
        return ""
    number = float(number)
    if number < 1:
        return f"{number * 1000:.0f} ms"
    return as_span(number)


def since(at: datetime, began: datetime) -> str:
    """Return how long after a beginning a moment is."""
    passed = (at - began).total_seconds()
    return f"+{passed:.3f} s" if passed < 100 else f"+{seconds(passed)}"  # noqa: PLR2004  beyond, thousandths tell nothing


def money(dollars: Decimal | None) -> str:
    """Return a price: cents at least, and as many digits as tell something."""
    if dollars is None:
        return ""
    whole, _, rest = f"{dollars:,.6f}".partition(".")
    return f"${whole}.{rest.rstrip('0').ljust(2, '0')}"
