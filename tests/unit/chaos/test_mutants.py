"""The table of defects: what counts as found, and what the page and the exit status are made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from producer.ledger.prepared import Prepared
from tests.chaos.judged import Judged, Verdict
from tests.chaos.matrix import BY_NAME, MUTANTS
from tests.chaos.mutants.catalogue import FOUND
from tests.chaos.mutants.patching import put, replaced, rewrite
from tests.chaos.mutants.table import Row, as_page, as_text, rows_of
from tests.houses import ROOT

NAME = "rescue_requeues"
PLAYED = next(piece for piece in MUTANTS if piece.mutant == NAME)


def row(
    verdict: Verdict = "broken", *why: str, took: float = 10.0, control: Verdict = "held", most_seconds: float = 300.0
) -> Row:
    judged = Judged(PLAYED, Path(), verdict, why, took=took)
    (made,) = rows_of([judged, Judged(BY_NAME[FOUND[NAME].cell], Path(), control)], most_seconds=most_seconds)
    return made


FOUND_IT = "I3 expected one applied effect at most; found applied 2 times"


def test_there_are_more_defects_than_were_promised_and_each_says_what_it_is() -> None:
    assert len(FOUND) >= 14
    assert len({found.what for found in FOUND.values()}) == len(FOUND)


def test_a_defect_is_found_by_an_invariant_that_is_about_it() -> None:
    found = row("broken", FOUND_IT)
    assert (found.by, found.is_found, found.is_well) == ("I3", True, True)
    assert found.why == "expected one applied effect at most; found applied 2 times"


@pytest.mark.parametrize(
    "missed",
    [
        row("held"),
        row("broken", "I13 expected 4 events, as its row says; found 3 events"),
        row("broken", FOUND_IT, took=301.0),
        row("inconclusive", "NotReached: nobody came there in 20 s"),
    ],
    ids=["not at all", "by another invariant", "too late", "inconclusive"],
)
def test_a_defect_that_counts_as_not_found(missed: Row) -> None:
    assert (missed.is_found, missed.is_well) == (False, False)


@pytest.mark.parametrize("control", ["broken", "inconclusive"])
def test_a_place_that_does_not_hold_without_the_defect_proves_nothing(control: Verdict) -> None:
    found = row("broken", FOUND_IT, control=control)
    assert (found.is_found, found.is_well) == (True, False)


def test_the_table_names_what_was_not_found_and_counts_what_was() -> None:
    lines = as_text([row("broken", FOUND_IT), row("held")], seconds=20.0).splitlines()
    assert lines[1].split()[:4] == [NAME, "I3", "10", "s"]
    assert "NOT FOUND" in lines[2]
    assert lines[-1].startswith("1 of 2 defects found, the slowest after 10 s; without them 1 of 1 places held; 20 s")


def test_the_page_says_what_is_wrong_where_it_was_played_and_on_which_machine() -> None:
    page = as_page([row("broken", FOUND_IT)], seconds=20.0, where="2 processors")
    assert f"| `{NAME}` | {FOUND[NAME].what} | `{FOUND[NAME].cell}` | I3 | 10 s | held |" in page
    assert page.rstrip().endswith("(2 processors)")


def test_the_page_of_the_documents_has_every_defect_and_each_was_found() -> None:
    page = (ROOT / "docs/chaos/mutants.md").read_text()
    for name, found in FOUND.items():
        (line,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:3] == [found.what, f"`{found.cell}`"]
        assert cells[3] in found.invariants
        assert cells[5] == "held"


def test_a_defect_for_which_the_product_has_no_place_any_more_is_refused() -> None:
    with pytest.raises(LookupError, match="missing"):
        put(object(), "missing", None)
    with pytest.raises(LookupError, match="SKIP LOCKED"):
        replaced("SELECT 1", "SKIP LOCKED", "")
    with pytest.raises(LookupError, match="fence"):
        rewrite(Prepared("one", "SELECT 1"), "fence", "true")
