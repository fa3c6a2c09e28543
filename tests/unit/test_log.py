"""What the log shows, in each of its two forms, and what it must not."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from worker.log import configure


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = before
    structlog.reset_defaults()


def written(style: str) -> str:
    stream = io.StringIO()
    configure(style, "info", stream=stream)
    log = structlog.get_logger("worker").bind(job_id="j")
    try:
        int("postgresql://me:canary-password@host/db")
    except ValueError:
        log.exception("thing.failed", api_key="canary-key", url="redis://:canary-url@host/0")
        logging.getLogger("somebody.elses").exception("Bearer canary-bearer-0123456789")
    return stream.getvalue()


@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_are_in_no_line_and_no_traceback(style: str) -> None:
    text = written(style)
    assert "thing.failed" in text
    assert "ValueError" in text
    assert "canary" not in text.replace("thing", "")


def test_json_is_one_object_a_line_with_the_bound_names() -> None:
    ours, theirs = (json.loads(line) for line in written("json").splitlines())
    assert (ours["event"], ours["level"], ours["job_id"]) == ("thing.failed", "error", "j")
    assert "Traceback" in ours["exception"]
    assert theirs["level"] == "error"
    assert ours["timestamp"].endswith("Z")
