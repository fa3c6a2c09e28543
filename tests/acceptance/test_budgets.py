"""Budgets, kept by real workers: nobody begins what cannot be paid for, and nothing is counted twice."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from producer import JobFailed, Settings, State
from producer.budget_words import BudgetStanding
from producer.cli import main
from producer.job import Job
from tests.houses import ACTION_MODULES, House, house_of, start_worker, until

SECONDS = 20.0
MODULES = {"SUREFOOT_ACTION_MODULES": ",".join((*ACTION_MODULES, "tests.budget_actions"))}

users = count(1)


@pytest.fixture(scope="module")
def house(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("house"), environment=MODULES) as made:
        yield made


@pytest.fixture
def user() -> str:
    """Somebody whose share nobody has spent of."""
    return f"u{next(users)}"


def spend(house: House, user: str, usd: str | None, **more: Any) -> Job:
    return house.producer.enqueue(
        "budget.spend", {"usd": usd, **more}, user_id=user, idempotency_key=f"{user}{next(users)}"
    )


def share(house: House, user: str, name: str = "spenders") -> BudgetStanding:
    (found,) = (each for each in house.producer.budgets(name) if each.key and each.key["user"] == user)
    return found


def held(job: Job) -> dict[str, Any]:
    """The event of a job that waits for a budget, waited for."""
    until(lambda: job.refresh().record.waiting_for == "budget")
    return dict(job.events[-1].data or {})


def test_what_is_used_is_spent_and_what_was_reserved_beyond_is_free_again(house: House, user: str) -> None:
    spend(house, user, "0.5", used="0.125").get(SECONDS)
    amounts = share(house, user).usd
    assert (amounts.ceiling, amounts.spent, amounts.reserved, amounts.left) == (
        1,
        Decimal("0.125"),
        0,
        Decimal("0.875"),
    )
    assert share(house, user).calls.spent == 1
    assert share(house, user).tokens.spent == 2


@pytest.mark.parametrize(
    ("how", "spent", "state"),
    [
        pytest.param("retry", "0", State.DEAD, id="nothing happened: it is released"),
        pytest.param("unknown", "0.5", State.DEAD, id="nobody knows: all of it, of both attempts"),
    ],
)
def test_an_attempt_that_failed_has_spent_what_it_may_have(
    house: House, user: str, how: str, spent: str, state: State
) -> None:
    assert spend(house, user, "0.25", how=how).wait(SECONDS).state is state
    assert (share(house, user).usd.spent, share(house, user).usd.reserved) == (Decimal(spent), 0)


def test_a_job_for_which_too_little_is_left_today_waits_for_tomorrow(house: House, user: str) -> None:
    spend(house, user, "0.5", used="0.75").get(SECONDS)
    job = spend(house, user, "0.5")
    said = held(job)
    assert (job.record.waiting_on, job.record.attempt, said["why"]) == ("spenders", 0, "budget exhausted")
    told = said["budget"]
    assert told["usd"] == {"ceiling": "1", "spent": "0.75", "reserved": "0", "asked": "0.5", "left": "0.25"}
    assert told["key"] == {"tenant": "default", "user": user}
    assert job.events[-1].kind == "held"
    ends_at = share(house, user).ends_at
    assert ends_at is not None
    assert 0 <= (job.record.due_at - ends_at).total_seconds() <= 62
    assert share(house, user).waiting >= 1


def test_an_operator_s_ceiling_lets_go_who_waits_without_a_deploy(house: House, user: str) -> None:
    spend(house, user, "0.5", used="1").get(SECONDS)
    job = spend(house, user, "0.5")
    held(job)
    run(house, "budget", "set", "spenders", "--usd", "5", "--reason", "the month ends", "--who", "ada")
    assert job.get(SECONDS) == 1
    shown = run(house, "budget", "reset", "spenders")
    assert "set" not in shown


def test_a_budget_that_refuses_fails_the_job_and_says_what_was_left(house: House, user: str) -> None:
    params = {"usd": "0.5", "used": "0.4"}
    house.producer.enqueue("budget.spend", params, request_id=user, user_id=user).get(SECONDS)
    second = house.producer.enqueue("budget.spend", {"usd": "0.25"}, request_id=user, user_id=user)
    with pytest.raises(
        JobFailed, match=r"BudgetExhausted: budget exhausted \(strict .*: usd: 0.25 asked, 0.1 left of 0.5"
    ):
        second.get(SECONDS)
    assert (second.state, second.record.attempt) == (State.FAILED, 0)
    assert share(house, user).usd.spent == Decimal("0.4")  # nothing of the other budget either


def test_what_is_more_than_a_whole_share_fails_since_it_would_wait_for_ever(house: House, user: str) -> None:
    job = spend(house, user, "7").wait(SECONDS)
    assert (job.state, (job.events[-1].data or {})["why"]) == (State.FAILED, "more than its budget")


@pytest.mark.parametrize("usd", [None, "raise"])
def test_a_price_that_nobody_knows_is_not_zero(house: House, user: str, usd: str | None) -> None:
    said = held(spend(house, user, usd))
    assert said["why"] == "price unknown"
    assert said["budget"]["unknown"] == "usd"


def test_an_action_that_is_named_by_a_budget_of_money_and_declares_no_cost_does_not_run(house: House) -> None:
    job = house.producer.enqueue("dear.unsaid", {}).wait(SECONDS)
    assert (job.state, (job.events[-1].data or {})["why"]) == (State.FAILED, "price unknown")


def test_an_action_that_no_budget_covers_reserves_nothing(house: House) -> None:
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2}).wait(SECONDS)
    assert [event.kind for event in job.events] == ["accepted", "claimed", "intended", "succeeded"]


def test_calls_are_counted_by_action_and_agent(house: House) -> None:
    def ended(agent: str, n: int) -> State:
        return house.producer.enqueue("free.count", {"n": n}, agent_id=agent).wait(SECONDS).state

    assert [ended("a1", n) for n in range(3)] == [State.SUCCEEDED, State.SUCCEEDED, State.FAILED]
    assert ended("a2", 1) is State.SUCCEEDED


def test_an_invalid_result_after_an_effect_is_paid_once_spent_in_full_and_never_done_again(
    house: House, user: str, tmp_path: Path
) -> None:
    mark = tmp_path / "paid"
    job = house.producer.enqueue("budget.pay", {"usd": "0.25", "mark": str(mark)}, user_id=user).wait(SECONDS)
    assert (job.state, (job.events[-1].data or {})["why"]) == (State.IN_DOUBT, "invalid result after the effect")
    assert mark.read_text() == "paid\n"
    assert share(house, user).usd.spent == Decimal("0.25")


def test_a_budget_that_an_operator_adds_is_kept_by_workers_that_run(house: House) -> None:
    house.producer.budgets.add(
        "added", per=(), actions="test.add", calls=0, on_exhausted="refuse", reason="an incident"
    )

    def refused() -> bool:
        job = house.producer.enqueue("test.add", {"a": 1, "b": 2}, idempotency_key=f"added{next(users)}")
        return job.wait(SECONDS).state is State.FAILED

    until(refused)
    house.producer.budgets.remove("added")
    until(lambda: not refused())


def test_the_command_shows_spent_reserved_and_left(house: House, user: str) -> None:
    spend(house, user, "0.5", used="0.125").get(SECONDS)
    shown = run(house, "budgets", "spenders")
    (line,) = (line for line in shown.splitlines() if f"user={user}" in line)
    assert line.split("usd")[1].split()[:4] == ["0.125", "0.00", "0.875", "1.00"]
    assert '"left": "0.875000000"' in run(house, "budgets", "spenders", "--json")


def test_a_model_without_a_price_is_not_asked_under_a_ceiling_of_money(house: House) -> None:
    params: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "model": "unheard-of"}
    said = held(house.producer.enqueue("llm.chat", params))
    assert (said["why"], said["waiting_on"], said["budget"]["unknown"]) == ("price unknown", "models", "usd")


def test_what_a_model_may_answer_at_most_is_reserved_before_it_is_asked(house: House) -> None:
    params: dict[str, Any] = {"messages": [{"role": "user", "content": "hello"}], "model": "gpt-4o"}
    job = house.producer.enqueue("llm.chat", params | {"max_tokens": 100_001}).wait(SECONDS)
    # 0.0000025 a token of what is given, at most 5 + 4 bytes and 16 more; 0.00001 one of the answer.
    assert job.error is not None
    assert "more than its budget (models tenant=default): usd: 1.0000725 asked" in job.error["message"]


def test_an_approved_job_that_a_budget_holds_keeps_its_approval_for_when_there_is_more(house: House, user: str) -> None:
    spend(house, user, "0.5", used="1").get(SECONDS)
    job = house.producer.enqueue("budget.approved", {"usd": "0.25"}, user_id=user)
    until(lambda: job.refresh().state is State.AWAITING_APPROVAL)
    (approval,) = house.producer.approvals.list()
    assert (approval.effect, approval.cost) == ("unsafe", {"usd": "0.25", "tokens": 0, "calls": 1})
    house.producer.approvals.approve(approval.id, digest=approval.digest, by="ben", reason="agreed")
    assert held(job)["why"] == "budget exhausted"
    house.producer.budgets.set("spenders", usd=2, reason="the month ends")
    assert job.get(SECONDS) == 1
    house.producer.budgets.reset("spenders")
    kinds = [event.kind for event in job.events]
    assert (kinds.count("approval_requested"), kinds.count("budget_reserved"), kinds.count("intended")) == (1, 1, 1)


@pytest.mark.parametrize(
    ("follows", "state"),
    [
        pytest.param("test.add", State.SUCCEEDED, id="accepted"),
        pytest.param("nobody.knows", State.FAILED, id="refused"),
    ],
)
def test_an_outcome_that_brings_follow_ups_settles_once_whether_they_are_accepted_or_not(
    house: House, user: str, follows: str, state: State
) -> None:
    job = house.producer.enqueue("budget.follow", {"follows": follows}, user_id=user).wait(SECONDS)
    assert job.state is state
    assert (share(house, user).usd.spent, share(house, user).usd.reserved) == (Decimal("0.125"), 0)
    assert [event.kind for event in job.events].count("budget_settled") == 1


@pytest.mark.timeout(90)
def test_three_workers_that_race_for_one_share_spend_all_of_it_and_no_more(settings: Settings, tmp_path: Path) -> None:
    # A lease that ran out on a busy machine would leave a reservation of which nobody knows what came.
    environment = MODULES | {"SUREFOOT_LEASE_SECONDS": "30", "SUREFOOT_RENEW_SECONDS": "10"}
    with house_of(settings, tmp_path, environment=environment) as own:
        others = [start_worker(settings, tmp_path / f"{n}.log", environment=environment) for n in range(2)]
        try:
            one = {"action": "budget.spend", "params": {"usd": "0.02", "used": "0.02"}, "user_id": "u"}
            accepted = own.producer.enqueue_many(
                [one | {"request_id": f"{n}", "idempotency_key": f"{n}"} for n in range(120)]
            )
            until(lambda: {job.refresh().state for job in accepted} == {State.SUCCEEDED, State.WAITING}, seconds=40)
            amounts = share(own, "u").usd
            assert (amounts.spent, amounts.reserved) == (1, 0)
            assert own.producer.counts()[State.SUCCEEDED] == 50
        finally:
            for other in others:
                other.stop()


LOOPS = ("budget.loop", "budget.loop_sync")


@pytest.mark.parametrize("action", LOOPS)
def test_each_further_call_of_an_attempt_is_reserved_before_it_and_all_are_settled_at_its_end(
    house: House, user: str, action: str
) -> None:
    # Under a budget of 0.5 a request there is money for two calls of 0.25 each.
    job = house.producer.enqueue(action, {"calls": 5}, user_id=user, request_id=user, agent_id=action)
    assert job.get(SECONDS) == 2
    amounts = share(house, user).usd
    assert (amounts.spent, amounts.reserved) == (Decimal("0.25"), 0)
    reserved = [event.data["budgets"] for event in job.events if event.kind == "budget_reserved" and event.data]
    assert [[each.get("call") for each in budgets] for budgets in reserved] == [[None, None], [1, 1], [2, 2]]
    assert [event.kind for event in job.events][-2:] == ["budget_settled", "succeeded"]
    assert share(house, user).calls.spent == 2


@pytest.mark.parametrize("action", LOOPS)
def test_an_attempt_that_cannot_pay_for_a_call_does_not_make_it_and_ends_as_the_budget_says(
    house: House, user: str, action: str
) -> None:
    job = house.producer.enqueue(action, {"calls": 1, "usd": "0.75"}, user_id=user, request_id=user)
    with pytest.raises(JobFailed, match=r"BudgetShort: more than its budget \(strict"):
        job.get(SECONDS)
    assert (job.state, share(house, user).usd.spent) == (State.FAILED, 0)


SHORT_LEASES = MODULES | {"SUREFOOT_LEASE_SECONDS": "2", "SUREFOOT_RENEW_SECONDS": "0.5"}


@pytest.mark.parametrize(
    ("dies", "left"),
    [
        pytest.param("reserve.before", "0", id="before anything is reserved"),
        # Of the first attempt nobody knows what it used: what it had reserved stays so.
        pytest.param("reserve.committed", "0.25", id="reserved and intended, and it has not heard"),
        pytest.param("settle.before", "0.25", id="performed, and its outcome is about to leave"),
        pytest.param("settle.committed", "0", id="settled, and it has not heard"),
    ],
)
def test_a_worker_killed_between_reserving_and_settling_counts_nothing_twice(
    settings: Settings, tmp_path: Path, dies: str, left: str
) -> None:
    modules = f"{SHORT_LEASES['SUREFOOT_ACTION_MODULES']},tests.budget_deaths"
    deadly = {"SUREFOOT_ACTION_MODULES": modules, "BUDGET_DIES": dies, "BUDGET_DIED": str(tmp_path / "died")}
    with house_of(settings, tmp_path, environment=SHORT_LEASES | deadly) as own:
        job = spend(own, "somebody", "0.25", used="0.125")
        until(lambda: own.worker.process.poll() is not None)
        other = start_worker(settings, tmp_path / "other.log", environment=SHORT_LEASES)
        try:
            assert job.get(SECONDS) == 1
        finally:
            other.stop()
        amounts = share(own, "somebody").usd
        assert (amounts.spent, amounts.reserved) == (Decimal("0.125"), Decimal(left))
        assert amounts.unknown == Decimal(left)
        assert job.record.attempt == (2 if Decimal(left) else 1)


def run(house: House, *arguments: str) -> str:
    environment = {
        "SUREFOOT_DATABASE_URL": house.settings.database_url,
        "SUREFOOT_REDIS_URL": house.settings.redis_url,
        "COLUMNS": "200",
    }
    result = CliRunner().invoke(main, list(arguments), env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def test_one_user_may_have_a_ceiling_of_his_own_in_the_place_of_everybody_s(house: House) -> None:
    def ask(who: str, usd: str) -> Job:
        job = house.producer.enqueue("own.spend", {"usd": usd}, user_id=who, idempotency_key=f"{who}{next(users)}")
        return job.wait(SECONDS)

    assert [ask("rich", "0.75").state for _ in range(2)] == [State.SUCCEEDED] * 2
    refused = ask("rich", "0.75")
    assert (refused.state, dict(refused.events[-1].data or {})["budget"]["budget"]) == (State.FAILED, "rich")
    assert ask("poor", "0.5").state is State.SUCCEEDED
    refused = ask("poor", "0.1")
    assert (refused.state, dict(refused.events[-1].data or {})["budget"]["budget"]) == (State.FAILED, "general")
    spent = {(each.budget.name, (each.key or {}).get("user")): each.usd.spent for each in house.producer.budgets()}
    assert (spent["rich", "rich"], spent["general", "poor"]) == (Decimal("1.5"), Decimal("0.5"))
    assert ("general", "rich") not in spent


def test_an_operator_gives_somebody_a_ceiling_of_his_own(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUREFOOT_DATABASE_URL", house.settings.database_url)
    monkeypatch.setenv("SUREFOOT_REDIS_URL", house.settings.redis_url)
    words = ["budget", "add", "kim-own", "--per", "user", "--usd", "1", "--reason", "she asked"]
    shown = CliRunner().invoke(main, [*words, "--only-for", "user=kim", "--instead-of", "general"])
    assert shown.exit_code == 0, shown.output
    assert "only for" in shown.output
    record = house.producer.budgets.get("kim-own")
    assert (record.only_for, record.instead_of) == ({"user": "kim"}, "general")
    (act,) = [each for each in house.producer.acts() if each.target == "kim-own"]
    assert (act.data or {})["only_for"] == {"user": "kim"}
    assert "only_for: 'kim' names nobody" in CliRunner().invoke(main, [*words, "--only-for", "kim"]).output
    house.producer.budgets.remove("kim-own")
