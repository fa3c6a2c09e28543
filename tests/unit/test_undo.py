"""What may be declared to undo an action."""

from __future__ import annotations

from typing import Any

import pytest

from tasks._signature import InvalidAction
from tasks._spec import ActionSpec
from tasks._undo import check_undoing
from tests.unit.test_spec import spec_of


def write(book: str, words: str) -> int:
    """Write."""
    return len(book + words)


def strike(book: str, result: int, colour: str = "red") -> None:
    """Strike."""


def burn(library: str, result: int) -> None:
    """Need what nobody has."""


def spec(function: Any, name: str, undo: Any = None) -> ActionSpec:
    return spec_of(function, name=name, undo=undo)


@pytest.mark.parametrize("undo", [strike, "strike", "", "Note.Strike", 7, "note.write"])
def test_what_names_no_other_action_is_refused(undo: Any) -> None:
    with pytest.raises(InvalidAction, match="is not another action's name, such as "):
        spec(write, "note.write", undo)


def test_an_action_that_undoes_takes_params_of_the_other_its_result_and_what_has_a_default() -> None:
    check_undoing({"a.b": spec(write, "a.b", "a.c"), "a.c": spec(strike, "a.c")})
    check_undoing({"a.b": spec(write, "a.b", "a.elsewhere")})


def test_one_that_needs_more_is_refused_when_the_actions_are_loaded() -> None:
    with pytest.raises(InvalidAction, match="needs library, which neither its params nor result= have"):
        check_undoing({"a.b": spec(write, "a.b", "a.c"), "a.c": spec(burn, "a.c")})
