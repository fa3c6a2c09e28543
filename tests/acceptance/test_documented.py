"""The examples of docs/actions.md and docs/errors.md, performed by a real worker."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from producer import JobDegraded, JobFailed, Settings, State
from tests.houses import ACTION_MODULES, House, house_of, until
from tests.http_stand_in import Answering, served

SECONDS = 20.0
NOBODY = "http://127.0.0.1:1"


class _World(Answering):
    """A shop, a bank, and a model that first answers what cannot be used."""

    said = 0

    def get(self) -> None:
        self.answer({"amount": 9.5})

    def post(self) -> None:
        asked = self.asked()
        if self.path == "/charges":
            self.answer(
                {"status": "declined", "why": "it has expired"} if asked["cents"] == 13 else {"status": "", "id": "c-1"}
            )
            return
        text = "Well, let me see." if len(asked["messages"]) == 1 else '{"category": "refund"}'
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        self.answer({"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]})


@pytest.fixture(scope="module")
def world() -> Iterator[str]:
    with served(_World) as url:
        yield url


@pytest.fixture(scope="module")
def house(module_settings: Settings, world: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    environment = {
        "SUREFOOT_ACTION_MODULES": ",".join((*ACTION_MODULES, "tests.documented_actions")),
        "OPENAI_BASE_URL": f"{world}/v1",
        "OPENAI_API_KEY": "none",
        "NO_PROXY": "127.0.0.1",
    }
    with house_of(module_settings, tmp_path_factory.mktemp("house"), environment=environment) as made:
        yield made


def test_the_fallback_of_the_page_stands_in_and_leaves_a_job_for_the_true_result(house: House, world: str) -> None:
    asked = house.producer.enqueue("price.ask", {"shop": world, "item": "lamp"})
    assert asked.get(SECONDS) == {"amount": 9.5, "said_by": "the shop"}
    down = house.producer.enqueue("price.ask", {"shop": NOBODY, "item": "lamp"}, request_id="down")
    with pytest.raises(JobDegraded) as caught:
        down.get(SECONDS)
    assert caught.value.fallback == {"amount": 12.5, "said_by": "the list: out of retries"}
    _, left = house.producer.chain("down")
    assert left.state is State.QUEUED
    assert 890 < (left.due_at - left.accepted_at).total_seconds() < 910


def test_the_repair_of_the_page_repairs(house: House) -> None:
    job = house.producer.enqueue("ticket.sort", {"ticket": "I want my money back"})
    assert job.get(SECONDS) == {"category": "refund"}
    assert (job.record.attempt, job.record.repairs) == (1, 1)


def test_the_errors_of_the_page_mean_what_it_says(house: House, world: str) -> None:
    assert house.producer.enqueue("card.charge", {"bank": world, "cents": 1}).get(SECONDS) == "c-1"
    declined = house.producer.enqueue("card.charge", {"bank": world, "cents": 13}).wait(SECONDS)
    assert (declined.state, (declined.error or {})["message"]) == (State.FAILED, "it has expired")
    nobody = house.producer.enqueue("card.charge", {"bank": NOBODY, "cents": 1}).wait(SECONDS)
    assert (nobody.state, nobody.record.attempt) == (State.DEAD, 2)


def test_the_policies_of_the_page_ask_two_of_finance_and_show_what_changes(house: House) -> None:
    for person in ("ben", "eve"):
        house.producer.roles.grant("finance", person)
    request: dict[str, Any] = {"user_id": "ada", "agent_id": "desk"}
    small = house.producer.enqueue("payout.send", {"to": "ada@example.com", "amount": "9.50"}, **request)
    assert small.get(SECONDS) == f"{small.id}:0"
    none = house.producer.enqueue("payout.send", {"to": "ada@example.com", "amount": "0"}, **request)
    with pytest.raises(JobFailed, match=r"large_payouts \(version 2\): a payout is more than nothing"):
        none.get(SECONDS)
    other = house.producer.enqueue("payout.send", {"to": "ada@example.com", "amount": "1"}, agent_id="poet")
    with pytest.raises(JobFailed, match="only the desk's agents pay out"):
        other.get(SECONDS)
    large = house.producer.enqueue("payout.send", {"to": "ada@example.com", "amount": "100"}, **request)
    until(lambda: large.refresh().state is State.AWAITING_APPROVAL)
    (approval,) = house.producer.approvals.list()
    assert approval.preview == {"account": "ada@example.com", "before": "250", "after": "150"}
    for person in ("ben", "eve"):
        house.producer.approvals.approve(approval.id, digest=approval.digest, by=person, reason="agreed on the phone")
    assert large.get(SECONDS) == f"{large.id}:0"


def test_the_budgets_of_the_page_are_spent_of_by_day_and_refuse_when_they_are_used_up(house: House) -> None:
    def text(n: int) -> State:
        request = {"to": "ada", "body": "x" * 200}
        return (
            house.producer.enqueue("text.send", request, agent_id="desk", idempotency_key=f"t{n}").wait(SECONDS).state
        )

    assert text(0) is State.SUCCEEDED
    (of_the_day,) = house.producer.budgets("tenant-day")
    assert (of_the_day.key, of_the_day.usd.spent) == ({"tenant": "default"}, Decimal("0.018"))
    house.producer.budgets.set("agent-texts", calls=1, reason="to see it refuse")
    assert text(1) is State.FAILED


def test_the_check_of_the_page_refuses_what_does_not_add_up_and_its_look_up_confirms_the_rest(house: House) -> None:
    assert house.producer.enqueue("split.book", {"total": 9, "ways": 3}).get(SECONDS) == {
        "shares": [3, 3, 3],
        "total": 9,
    }
    job = house.producer.enqueue("split.book", {"total": 10, "ways": 3})
    until(lambda: any(event.kind == "in_doubt" for event in job.events))
    (doubt,) = (event.data for event in job.events if event.kind == "in_doubt")
    assert doubt is not None
    assert doubt["error"]["message"].endswith("adds_up: the shares make 9, not 10")
