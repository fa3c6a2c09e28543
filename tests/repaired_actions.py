"""Actions whose answers cannot be used at first."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tasks import Context, InvalidAnswer, Retry, action
from tests.unbroken import unbroken

unbroken("repair")


class Sorting(BaseModel):
    """A typed answer."""

    category: str
    urgency: int


@action("repair.sort", effect="pure", max_retries=0, max_repairs=2)
async def sort(answers: list[Any], log: str, ctx: Context) -> Sorting:
    """Answer each time as named, and write down what was to be repaired."""
    return _sort(answers, await asyncio.to_thread(_note, log, ctx))


@action("repair.sort_sync", effect="pure", max_retries=0, max_repairs=2)
def sort_sync(answers: list[Any], log: str, ctx: Context) -> Sorting:
    """Do the same in a thread."""
    return _sort(answers, _note(log, ctx))


@action("repair.fallback", effect="pure", max_retries=0, max_repairs=1, fallback={"category": "other", "urgency": 1})
async def with_fallback(answers: list[Any], log: str, ctx: Context) -> Sorting:
    """Do the same, with a fallback."""
    return _sort(answers, await asyncio.to_thread(_note, log, ctx))


def _sort(answers: list[Any], calls: int) -> Sorting:
    answer = answers[min(calls, len(answers)) - 1]
    match answer:
        case "raise":
            raise InvalidAnswer("it is no JSON object", answer="well, let me think")
        case "fail":
            raise Retry("not reached")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
    return answer  # type: ignore[no-any-return]  # the point


def _note(log: str, ctx: Context) -> int:
    repair = ctx.repair
    told = None if repair is None else [repair.number, repair.error, repair.answer]
    with Path(log).open("a") as file:
        file.write(json.dumps({"attempt": ctx.attempt, "repair": told}) + "\n")
    return len(Path(log).read_text().splitlines())
