"""``llm.chat`` in a conversation: the model is given what was said before, and what it says is kept once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from producer import ConversationNotFound, Producer, Settings, State
from producer.job import Job
from tests.houses import start_worker
from worker.dev.standins import MODEL, Fault, Kind, Service, StandIns, stand_ins

SECONDS = 30.0
FAULTS = {
    (Service.LLM, "T-1"): (Fault(Kind.UNAVAILABLE), Fault(Kind.RESET)),
    (Service.LLM, "T-2"): (Fault(Kind.RATE_LIMIT, retry_after_seconds=0.2),),
}


@dataclass(frozen=True, slots=True)
class Desk:
    """A worker and the model that it talks to."""

    producer: Producer
    services: StandIns

    def chat(self, conversation: str | None, *contents: str, **more: Any) -> Job:
        """Say something as the user, after the system's word."""
        messages = [{"role": "system", "content": "Be brief."}]
        messages += [{"role": "user", "content": content} for content in contents]
        named = {} if conversation is None else {"conversation_id": conversation}
        params = {"model": MODEL, "messages": messages, "timeout": 1, **named, **more}
        key = f"{conversation}-{contents[-1]}".replace(" ", "_")
        return self.producer.enqueue("llm.chat", params, idempotency_key=key)

    def given(self) -> list[tuple[str, str]]:
        """What the model was given last."""
        return [(message["role"], message["content"]) for message in self.services.llm.calls[-1].messages]


@pytest.fixture(scope="module")
def desk(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with stand_ins(faults=FAULTS) as services:
        environment = {
            "OPENAI_BASE_URL": services.llm_url,
            "OPENAI_API_KEY": "sk-test-canary-0123456789abcdef",
            "NO_PROXY": "127.0.0.1",
        }
        worker = start_worker(module_settings, tmp_path_factory.mktemp("desk") / "worker.log", environment=environment)
        producer = Producer(module_settings)
        yield Desk(producer, services)
        producer.close()
        worker.stop()


def test_the_model_is_given_what_was_said_before_between_its_instructions_and_what_is_new(desk: Desk) -> None:
    first = desk.chat("one", "T-10: where is my parcel?").get(SECONDS)
    second = desk.chat("one", "T-11: and my refund?").get(SECONDS)
    assert desk.given() == [
        ("system", "Be brief."),
        ("user", "T-10: where is my parcel?"),
        ("assistant", first["text"]),
        ("user", "T-11: and my refund?"),
    ]
    read = desk.producer.conversation("one")
    assert [(message.role, message.content, message.tokens) for message in read.messages] == [
        ("user", "T-10: where is my parcel?", None),
        ("assistant", first["text"], first["tokens_out"]),
        ("user", "T-11: and my refund?", None),
        ("assistant", second["text"], second["tokens_out"]),
    ]


def test_turns_asked_for_at_once_are_given_one_another_s_answers_in_order(desk: Desk) -> None:
    jobs = [desk.chat("queue", f"T-2{n}: question {n}") for n in range(5)]
    answers = [job.get(SECONDS)["text"] for job in jobs]
    read = desk.producer.conversation("queue")
    assert [message.content for message in read.messages] == [
        content for n, answer in enumerate(answers) for content in (f"T-2{n}: question {n}", answer)
    ]
    assert len(desk.given()) == 1 + 2 * 4 + 1


@pytest.mark.parametrize(("ticket", "attempts"), [("T-1", 3), ("T-2", 1)], ids=["fails twice", "is held"])
def test_a_turn_that_is_tried_again_is_kept_once(desk: Desk, ticket: str, attempts: int) -> None:
    job = desk.chat(ticket, f"{ticket}: hello", "and again")  # the stand-in fails by the last user message's ticket
    other = desk.chat(f"{ticket}-failing", f"{ticket}: hello")
    for each in (job, other):
        each.get(SECONDS)
    assert other.record.attempt == attempts
    assert desk.producer.conversation(ticket).length == 3
    assert desk.producer.conversation(f"{ticket}-failing").length == 2


def test_a_turn_that_the_model_s_server_refuses_says_nothing(desk: Desk) -> None:
    params = {"model": MODEL, "messages": [{"role": "system", "content": "Nobody asks."}], "conversation_id": "refused"}
    job = desk.producer.enqueue("llm.chat", params).wait(SECONDS)
    assert job.state is State.FAILED
    assert desk.producer.conversation("refused").length == 0


def test_a_chat_without_a_conversation_is_kept_nowhere(desk: Desk) -> None:
    desk.chat(None, "T-30: hello").get(SECONDS)
    assert desk.given() == [("system", "Be brief."), ("user", "T-30: hello")]
    with pytest.raises(ConversationNotFound):
        desk.producer.conversation("None")


def test_what_cannot_be_kept_is_refused_before_the_model_is_asked(desk: Desk) -> None:
    asked = len(desk.services.llm.calls)
    job = desk.chat("many", *(f"line {n}" for n in range(1_001))).wait(SECONDS)
    assert job.error is not None
    assert (job.state, job.error["type"], job.record.attempt) == (State.FAILED, "Refused", 1)
    assert "more than 1,000" in job.error["message"]
    assert len(desk.services.llm.calls) == asked
