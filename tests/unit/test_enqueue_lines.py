"""How a file of requests is cut into batches, so that none is refused for what its neighbours hold."""

from __future__ import annotations

import json

import pytest

from producer.cli.enqueue import FILE_BATCH_BYTES, _batches
from producer.envelope import BATCH_CHARACTERS

SMALL, LARGE = b"x\n", b"x" * 1_500_000


@pytest.mark.parametrize(
    ("lines", "sizes"),
    [([SMALL] * 1_200, [500, 500, 200]), ([LARGE] * 7, [3, 3, 1]), ([LARGE, *[SMALL] * 501], [500, 2]), ([], [])],
)
def test_a_batch_has_no_more_lines_and_no_more_bytes_than_one_statement_takes(
    lines: list[bytes], sizes: list[int]
) -> None:
    batches = list(_batches(enumerate(lines, 1)))
    assert [len(batch) for batch in batches] == sizes
    assert [line for batch in batches for _, line in batch] == lines
    assert [number for batch in batches for number, _ in batch] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("short", ["1e15", '"\\u0001"', '"x"', "[[],[]]", "-1e-7"])
def test_lines_of_so_many_bytes_are_never_more_characters_than_a_batch_may_have(short: str) -> None:
    longest = 1 << 21  # of a line that may be accepted: its params, and what else it says
    most = (FILE_BATCH_BYTES + longest) / len(short) * len(json.dumps(json.loads(short)))
    assert most < BATCH_CHARACTERS
