"""Turns in any order, by several workers, are had one at a time and in order, and nobody is left behind.

`LEDGER_MODEL_EXAMPLES=2000` looks further, and for defects that show rarely, as for the ledger's model.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from types import ModuleType

import pytest
from hypothesis import Phase
from hypothesis import settings as examples
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.engine import Connection

from producer import Settings
from producer.ledger import conversations
from producer.ledger.engine import open_engine
from producer.ledger.prepared import Prepared
from tests.integration.ledger_model.clock import stop_the_clock
from tests.integration.turns_machine import TEST, WORKERS, TurnsMachine
from worker import turns

STEPS = 30
LOOKS_FURTHER = "LEDGER_MODEL_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("LEDGER_MODEL_EXAMPLES", "15"))
MUTANT_EXAMPLES = 150
# Defects that the machine comes upon so rarely that only a run that looks further tries.
RARE = {
    "a turn is taken from whoever has it",
    "a turn is free once it waits",
    "whoever has the turn is not told of",
    "the next is rung for before the turn is free",
}
MUTANTS: Mapping[str, tuple[ModuleType, str, str, str]] = {
    "a turn is taken from whoever has it": (
        turns,
        "TAKE_TURNS",
        "coalesce(g.holder, g.first) = g.id",
        "g.first = g.id",
    ),
    "a turn is free once it waits": (
        conversations,
        "PUT_OFF",
        "'in_doubt', 'queued', 'running', 'waiting'",
        "'running'",
    ),
    "whoever has the turn is not told of": (turns, "TAKE_TURNS", "coalesce(holder, first) AS ahead", "first AS ahead"),
    "the next is rung for before the turn is free": (
        turns,
        "NEXT_TURNS",
        "WHERE NOT EXISTS (",
        "WHERE true OR EXISTS (",
    ),
    "all that are held are put off": (conversations, "PUT_OFF", "first.id) <> j.id", "first.id) IS NOT NULL"),
    "one that shall run later is first": (turns, "TAKE_TURNS", "j.due_at > clock_timestamp()", "false"),
}


@pytest.fixture(scope="module")
def url(module_settings: Settings) -> str:
    """A migrated database whose clock the tests move."""
    engine = open_engine(module_settings.database_url, connections=1, name="tests")
    stop_the_clock(engine)
    return module_settings.database_url


@pytest.fixture
def machine(url: str) -> Iterator[type[TurnsMachine]]:
    """One over connections on which no statement has been prepared yet, one for each who writes."""
    names = (TEST, *WORKERS)
    engine = open_engine(url, connections=len(names), name="tests")
    with ExitStack() as stack:
        made: dict[str, Connection] = {name: stack.enter_context(engine.connect()) for name in names}
        for connection in made.values():
            connection.execute(text("SET synchronous_commit = off"))  # thousands of commits

        class Machine(TurnsMachine):
            def __init__(self) -> None:
                super().__init__(made)

        yield Machine
    engine.dispose()


@pytest.mark.timeout(3600)
def test_turns_are_had_one_at_a_time_in_order_and_all_of_them_come(machine: type[TurnsMachine]) -> None:
    run_state_machine_as_test(machine, settings=examples(max_examples=EXAMPLES, stateful_step_count=STEPS))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("mutant", [name for name in MUTANTS if LOOKS_FURTHER or name not in RARE])
def test_a_defect_of_the_turns_is_found_out(
    machine: type[TurnsMachine], monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    module, name, old, new = MUTANTS[mutant]
    statement = getattr(module, name)
    monkeypatch.setattr(module, name, _changed(statement, old, new))
    some = examples(max_examples=MUTANT_EXAMPLES, stateful_step_count=STEPS, phases=[Phase.generate], print_blob=False)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=some)


def _changed(statement: object, old: str, new: str) -> object:
    if not isinstance(statement, Prepared):
        assert old in str(statement)
        return text(str(statement).replace(old, new))
    made = copy.copy(statement)
    assert old in made._plain  # noqa: SLF001  it is there to be broken, as the next
    made._plain, made._prepare = (form.replace(old, new) for form in (made._plain, made._prepare))  # noqa: SLF001
    return made
