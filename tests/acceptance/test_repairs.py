"""Answers that cannot be used are repaired, counted apart from retries, by real workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from producer import Settings, State
from producer.job import Job
from tests.houses import House, house_of, start_worker, until
from tests.http_stand_in import Answering, served

SECONDS = 20.0
GOOD = {"category": "refund", "urgency": 2}
BAD = {"category": "refund", "urgency": "soon"}
ACTIONS = ("repair.sort", "repair.sort_sync")


class _Model(Answering):
    """A model that answers what cannot be used until it is told so often enough."""

    said: list[str]
    heard: list[list[dict[str, Any]]]

    def post(self) -> None:
        asked = self.asked()
        self.heard.append(asked["messages"])
        text = self.said[min(len(self.heard), len(self.said)) - 1]
        message = {"role": "assistant", "content": text}
        answer = {
            "id": "x", "object": "chat.completion", "created": 0, "model": "m",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }  # fmt: skip
        self.answer(answer)


@pytest.fixture(scope="module")
def models() -> Iterator[str]:
    with served(_Model) as url:
        yield url


@pytest.fixture(scope="module")
def house(module_settings: Settings, models: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """One worker for all of the module's tests: another, that knows no model, would answer its rings, too."""
    environment = {
        "OPENAI_BASE_URL": f"{models}/v1",
        "OPENAI_API_KEY": "none",
        "NO_PROXY": "127.0.0.1",
    }
    with house_of(module_settings, tmp_path_factory.mktemp("house"), environment=environment) as made:
        yield made


@pytest.fixture
def log(tmp_path: Path) -> str:
    return str(tmp_path / "calls")


def calls(log: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(log).read_text().splitlines()]


def kinds(job: Job) -> list[str]:
    return [event.kind for event in job.events]


@pytest.mark.parametrize("action", ACTIONS)
def test_the_next_attempt_is_told_what_was_wrong_and_none_is_spent(house: House, log: str, action: str) -> None:
    job = house.producer.enqueue(action, {"answers": [BAD, "raise", GOOD], "log": log})
    assert job.get(SECONDS) == GOOD
    assert (job.record.attempt, job.record.repairs) == (1, 2)
    assert kinds(job).count("repair") == 2
    first, second, third = calls(log)
    assert first == {"attempt": 1, "repair": None}
    number, error, answer = second["repair"]
    assert (number, json.loads(answer)) == (1, BAD)
    assert "urgency" in error
    assert third["repair"] == [2, "it is no JSON object", "well, let me think"]


@pytest.mark.parametrize(
    ("action", "state", "calls_made"),
    [("repair.sort", State.DEAD, 3), ("repair.fallback", State.DEGRADED, 2)],
    ids=["dead", "its fallback stands in"],
)
def test_once_the_repairs_are_used_up_the_job_is_exhausted(
    house: House, log: str, action: str, state: State, calls_made: int
) -> None:
    job = house.producer.enqueue(action, {"answers": [BAD], "log": log}).wait(SECONDS)
    assert (job.state, dict(job.events[-1].data or {})["why"]) == (state, "out of repairs")
    assert len(calls(log)) == calls_made


def test_without_repairs_declared_an_invalid_result_is_a_failure_as_any(house: House) -> None:
    job = house.producer.enqueue("test.lie", {}, idempotency_key="lie").wait(SECONDS)
    assert (job.state, job.record.attempt, job.record.repairs) == (State.DEAD, 2, 0)


def test_a_worker_that_dies_with_a_repair_leaves_the_next_one_to_be_told_the_same(
    settings: Settings, tmp_path: Path, log: str
) -> None:
    with house_of(settings, tmp_path) as own:
        job = own.producer.enqueue("repair.sort", {"answers": [BAD, "die", GOOD], "log": log})
        until(lambda: own.worker.process.poll() is not None)
        other = start_worker(settings, tmp_path / "other.log")
        try:
            assert job.get(SECONDS) == GOOD
        finally:
            other.stop()
    assert calls(log)[1]["repair"] == calls(log)[2]["repair"] != None  # noqa: E711  chained, and plain to read
    assert (job.refresh().record.repairs, job.record.crashes) == (1, 1)


# ---- llm.chat --------------------------------------------------------------------------------------------------


@contextmanager
def saying(*said: str) -> Iterator[list[list[dict[str, Any]]]]:
    """Have the model answer so, one after the other; yield what it was given each time."""
    _Model.said, _Model.heard = list(said), []
    yield _Model.heard


SCHEMA = {"type": "object", "properties": {"urgency": {"type": "integer"}}, "required": ["urgency"]}
ASKED = [{"role": "user", "content": "How urgent is it?"}]


def test_a_model_is_told_what_was_wrong_with_its_answer_and_repairs_it(house: House) -> None:
    with saying("It is urgent.", '{"urgency": "very"}', '{"urgency": 3}') as heard:
        job = house.producer.enqueue("llm.chat", {"model": "m", "messages": ASKED, "schema": SCHEMA})
        assert job.get(SECONDS)["json"] == {"urgency": 3}
    assert heard[0] == ASKED
    assert [message["role"] for message in heard[1]] == ["user", "assistant", "user"]
    assert heard[1][1]["content"] == "It is urgent."
    assert "not the JSON that was asked for" in heard[1][2]["content"]
    assert "$.urgency: 'very' is not of type 'integer'" in heard[2][2]["content"]
    assert (job.record.attempt, job.record.repairs, job.record.tokens_in) == (1, 2, 30)


def test_a_model_that_never_answers_what_was_asked_for_ends_its_job(house: House) -> None:
    with saying("It is urgent.") as heard:
        params = {"model": "m", "messages": ASKED, "answer": "json"}
        job = house.producer.enqueue("llm.chat", params, idempotency_key="never").wait(SECONDS)
    assert (job.state, len(heard)) == (State.DEAD, 3)
    assert dict(job.events[-1].data or {})["why"] == "out of repairs"


def test_what_is_repaired_is_not_part_of_the_conversation(house: House) -> None:
    with saying("Well.", "[1]"):
        params = {"model": "m", "messages": ASKED, "answer": "json", "conversation_id": "repaired"}
        assert house.producer.enqueue("llm.chat", params).get(SECONDS)["json"] == [1]
    kept = house.producer.conversation("repaired")
    assert [(message.role, message.content) for message in kept.messages] == [
        ("user", "How urgent is it?"),
        ("assistant", "[1]"),
    ]
