"""The W3C trace context that runs through a job."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from producer.trace import child_of, current_traceparent, is_traceparent, new_traceparent, trace_id_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_the_example_of_the_w3c_is_a_traceparent() -> None:
    assert is_traceparent(TRACE)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(None, id="none"),
        pytest.param(TRACE.encode(), id="bytes"),
        pytest.param(f"{TRACE}\n", id="newline at the end"),
        pytest.param(f" {TRACE}", id="space before"),
        pytest.param(TRACE.upper(), id="upper case"),
        pytest.param(f"ff{TRACE[2:]}", id="version ff"),
        pytest.param(f"01{TRACE[2:]}", id="version 01"),
        pytest.param(f"{TRACE}-extra", id="more fields"),
        pytest.param("00-" + "0" * 32 + TRACE[35:], id="trace id of zeros"),
        pytest.param(TRACE[:36] + "0" * 16 + "-01", id="span id of zeros"),
        pytest.param(TRACE.replace("0af", "xaf"), id="not hexadecimal"),
        pytest.param(TRACE.replace("-", "_"), id="other separators"),
    ],
)
def test_anything_else_is_none(text: object) -> None:
    assert not is_traceparent(text)


def test_a_child_keeps_trace_and_flags_and_has_a_span_of_its_own() -> None:
    child = child_of(TRACE)
    assert is_traceparent(child)
    assert (child[:36], child[-3:]) == (TRACE[:36], TRACE[-3:])
    assert child != TRACE


def test_a_new_traceparent_begins_a_trace_where_there_is_none() -> None:
    first, second = new_traceparent(), new_traceparent()
    assert is_traceparent(first)
    assert trace_id_of(first) != trace_id_of(second)


def test_ids_do_not_repeat_themselves_for_whoever_seeds_the_shared_generator() -> None:
    random.seed(7)
    first = new_traceparent()
    random.seed(7)
    assert trace_id_of(new_traceparent()) != trace_id_of(first)


FORKS = """
import os
from producer.trace import new_traceparent
new_traceparent()
if os.fork() == 0:
    print(new_traceparent(), flush=True)
    os._exit(0)
os.wait()
print(new_traceparent())
"""


def test_a_forked_child_makes_ids_of_its_own() -> None:
    told = subprocess.run([sys.executable, "-c", FORKS], check=True, capture_output=True, text=True, timeout=60).stdout
    of_child, of_parent = told.split()
    assert trace_id_of(of_child) != trace_id_of(of_parent)


def test_a_new_traceparent_continues_the_current_one() -> None:
    token = current_traceparent.set(TRACE)
    try:
        assert trace_id_of(new_traceparent()) == "0af7651916cd43dd8448eb211c80319c"
    finally:
        current_traceparent.reset(token)
