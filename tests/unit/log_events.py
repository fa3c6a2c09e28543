"""Finding the events that the code logs, by its syntax: every ``log.info("noun.verb_past", key=…)`` there is."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEVELS = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
EVENT = re.compile(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*")


@dataclass(slots=True)
class Event:
    """How an event is logged, over all the places that log it."""

    levels: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)


def logged_events() -> dict[str, Event]:
    """Return every event by name. The demo and the development servers are left out: they talk to a person."""
    found: dict[str, Event] = defaultdict(Event)
    for folder in ("producer", "tasks", "worker"):
        for file in (ROOT / folder).rglob("*.py"):
            if file.is_relative_to(ROOT / "worker" / "dev"):
                continue
            for name, levels, keys in _calls(ast.parse(file.read_text(encoding="utf-8"))):
                found[name].levels |= levels
                found[name].keys |= keys
    return dict(found)


def _calls(module: ast.Module) -> Iterator[tuple[str, set[str], set[str]]]:
    aliases = _aliases(module)
    for call in (node for node in ast.walk(module) if isinstance(node, ast.Call) and node.args):
        levels = aliases.get(call.func.id, set()) if isinstance(call.func, ast.Name) else _levels(call.func)
        first = call.args[0]
        if levels and isinstance(first, ast.Constant) and EVENT.fullmatch(str(first.value)):
            yield str(first.value), levels, {str(keyword.arg) for keyword in call.keywords}


def _aliases(module: ast.Module) -> dict[str, set[str]]:
    """Find ``write = log.info if well else log.warning``."""
    found: dict[str, set[str]] = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            levels = set().union(*map(_levels, (n for n in ast.walk(node.value) if isinstance(n, ast.Attribute))))
            if levels:
                found[node.targets[0].id] = levels
    return found


def _levels(function: ast.expr) -> set[str]:
    return {function.attr} & LEVELS if isinstance(function, ast.Attribute) else set()
