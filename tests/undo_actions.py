"""Actions that others take back, for the tests' workers. What each does is one line in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tasks import Refused, action, require_approval, rule
from tests.unbroken import unbroken

unbroken("note")


def line(book: str, **facts: Any) -> int:
    """Have an effect; return how many there are by then."""
    with Path(book).open("a", encoding="utf-8") as file:
        file.write(json.dumps(facts) + "\n")
    return len(Path(book).read_text().splitlines())


@action("note.write", effect="idempotent", undo="note.strike")
def write(book: str, words: str) -> int:
    """Write something down; return its line."""
    return line(book, wrote=words)


@action("note.strike", effect="idempotent")
def strike(book: str, result: int) -> str:
    """Strike a line."""
    line(book, struck=result)
    return "struck"


@action("note.pay", effect="idempotent", undo="note.refund")
def pay(book: str, amount: int) -> str:
    """Pay somebody."""
    return f"payment {line(book, paid=amount)}"


@action("note.refund", effect="idempotent")
def refund(book: str, result: str, amount: int) -> None:
    """Take a payment back."""
    line(book, refunded=amount, of=result)


@action("note.tear", effect="idempotent", undo="note.mend")
def tear(book: str) -> None:
    """Tear it."""
    line(book, torn=True)


@action("note.mend", effect="idempotent")
def mend(book: str) -> None:
    """Fail to mend it while there is a file that says so."""
    if Path(f"{book}.torn").exists():
        raise Refused("it cannot be mended")
    line(book, mended=True)


@action("note.for_good", effect="idempotent")
def for_good(book: str) -> int:
    """Do what nothing takes back."""
    return line(book, done=True)


rule("refunds", "note.refund", require_approval(reason="money comes back", approvers=["ben", "ada"]))
