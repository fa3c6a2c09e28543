"""What has to be taken to its end is, also where whoever waits for it is cut off, again and again."""

from __future__ import annotations

import asyncio

import pytest

from tests.loops import on_a_loop
from worker.perform import to_the_end


@on_a_loop
async def test_one_who_is_cut_off_several_times_gets_the_answer_all_the_same() -> None:
    gate = asyncio.Event()

    async def work() -> str:
        await gate.wait()
        return "done"

    task = asyncio.create_task(to_the_end(work()))
    for _ in range(3):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    assert await task == "done"


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), asyncio.CancelledError()], ids=repr)
@on_a_loop
async def test_what_it_raises_is_raised_where_it_is_waited_for(error: BaseException) -> None:
    async def work() -> None:
        raise error

    with pytest.raises(type(error)):
        await to_the_end(work())
