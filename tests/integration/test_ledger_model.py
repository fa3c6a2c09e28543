"""The ledger's statements, in any order and by several workers, do what a model in plain Python says they should.

`LEDGER_MODEL_EXAMPLES=2000` looks further than every run of the tests does, and for defects that show rarely; with
`--hypothesis-profile=default` as well, it looks at other examples each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack

import pytest
from hypothesis import Phase
from hypothesis import settings as examples
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from producer import Settings
from producer.ledger.engine import open_engine
from tests.integration.ledger_model.clock import stop_the_clock
from tests.integration.ledger_model.machine import PRODUCER, TEST, WORKERS, over
from tests.integration.ledger_model.mutants import MUTANTS, Mutant

STEPS = 40
LOOKS_FURTHER = "LEDGER_MODEL_EXAMPLES" in os.environ
EXAMPLES = int(os.environ.get("LEDGER_MODEL_EXAMPLES", "40"))
# Within which a defect has to show; most do within a few.
MUTANT_EXAMPLES = 150


@pytest.fixture(scope="module")
def url(module_settings: Settings) -> str:
    """A migrated database whose clock the tests move."""
    engine = open_engine(module_settings.database_url, connections=1, name="tests")
    stop_the_clock(engine)
    return module_settings.database_url


@pytest.fixture
def connections(url: str) -> Iterator[Mapping[str, Connection]]:
    """One for each who writes, on which no statement has been prepared yet."""
    names = (PRODUCER, TEST, *WORKERS)
    engine = open_engine(url, connections=len(names), name="tests")
    with ExitStack() as stack:
        made = {name: stack.enter_context(engine.connect()) for name in names}
        for connection in made.values():
            connection.execute(text("SET synchronous_commit = off"))  # thousands of commits, and a crash is played
        yield made
    engine.dispose()


@pytest.mark.timeout(3600)
def test_the_statements_do_what_the_model_says_in_any_order(connections: Mapping[str, Connection]) -> None:
    run_state_machine_as_test(over(connections), settings=examples(max_examples=EXAMPLES, stateful_step_count=STEPS))


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "mutant", [each for each in MUTANTS if LOOKS_FURTHER or not each.rare], ids=lambda mutant: mutant.name
)
def test_a_statement_with_a_defect_is_found_out(
    connections: Mapping[str, Connection], monkeypatch: pytest.MonkeyPatch, mutant: Mutant
) -> None:
    mutant.put_in_place(monkeypatch)
    # Found is enough: nobody reads these counterexamples, so none is made smaller.
    some = examples(max_examples=MUTANT_EXAMPLES, stateful_step_count=STEPS, phases=[Phase.generate], print_blob=False)
    with pytest.raises((AssertionError, IntegrityError)):
        run_state_machine_as_test(over(connections), settings=some)
