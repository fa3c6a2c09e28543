"""What budgets said, in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from producer.explain.words import brief, counted

if TYPE_CHECKING:
    from producer.explain.sentences import Telling

EXHAUSTED = {
    "budget exhausted": "too little is left of",
    "budget reserved": "others had reserved what is left of",
    "more than its budget": "it costs more than all of",
}


def reserved(t: Telling) -> str:
    """Say what an attempt, or a further call of it, reserved."""
    found = t.facts["budgets"]
    call = found[0].get("call")
    what = f"Call {call} of attempt {t.event.attempt}" if call else f"Attempt {t.event.attempt}"
    told = "; ".join(f"{_amounts(each)} of {_share(each)}" for each in found)
    return f"{what} reserved what it may cost before it began: {told}."


def settled(t: Telling) -> str:
    """Say what an attempt spent."""
    told = "; ".join(f"{_amounts(each)} of {_share(each)}" for each in t.facts["budgets"])
    return f"Attempt {t.event.attempt} spent {told}."


def short(t: Telling) -> str | None:
    """Say of which budget too little was left, as a clause; None where it was no budget's word."""
    facts = t.facts.get("budget")
    if not isinstance(facts, dict):
        return None
    if t.why == "price unknown":
        unit = "money" if facts.get("unknown") == "usd" else brief(facts.get("unknown"))
        return f"nobody knows what it costs, and {_share(facts)} is a ceiling of {unit}"
    if t.why not in EXHAUSTED:
        return None
    told = ", ".join(
        f"{_amount(unit, of['asked'])} asked and {_amount(unit, of['left'])} left of {_amount(unit, of['ceiling'])}"
        for unit in ("usd", "tokens", "calls")
        if isinstance(of := facts.get(unit), dict)
    )
    return f"{EXHAUSTED[t.why]} {_share(facts)}{f': {told}' if told else ''}"


def _share(facts: Mapping[str, Any]) -> str:
    key = " ".join(f"{brief(name)} {brief(value)}" for name, value in (facts.get("key") or {}).items())
    day = f"on {brief(facts['day'])}" if facts.get("day") else ""
    of = ", ".join(part for part in (key, day) if part)
    return f"budget {brief(facts['budget'])}{f' ({of})' if of else ''}"


def _amounts(facts: Mapping[str, Any]) -> str:
    units = [unit for unit in ("usd", "tokens", "calls") if facts.get(unit) is not None and str(facts[unit]) != "0"]
    return ", ".join(_amount(unit, facts[unit]) for unit in units) or "nothing"


def _amount(unit: str, amount: Any) -> str:
    return f"${brief(amount)}" if unit == "usd" else counted(int(amount), unit.removesuffix("s"))
