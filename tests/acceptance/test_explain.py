"""Why did this run, or why does it not: real jobs, each in its state, by real workers."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from producer import Producer, Settings, State
from producer.explain import Explanation
from producer.job import Job
from producer.ledger.engine import open_engine
from tests.acceptance.test_cli import json_lines, surefoot
from tests.houses import House, WorkerProcess, house_of, until

LATER = datetime.now(UTC) + timedelta(days=2)


def said(found: Explanation) -> str:
    return "\n".join([found.headline, *(line.text for line in found.lines)])


def commands(found: Explanation) -> list[str]:
    return [step.command for step in found.next_steps if step.command is not None]


def ended(producer: Producer, action: str, params: dict[str, Any] | None = None, **request: Any) -> Explanation:
    job = producer.enqueue(action, params, **request).wait(30)
    return producer.explain(job.id)


def test_a_job_that_ran_says_who_wanted_it_and_why_and_every_step_of_its_way(house: House) -> None:
    found = ended(
        house.producer,
        "test.add",
        {"a": 1, "b": 2},
        idempotency_key="why-1",
        agent_id="desk",
        user_id="ann",
        request_id="ticket-1",
        reasoning="the sum was asked for",
    )
    assert found.state is State.SUCCEEDED
    assert found.headline.startswith("It ran and succeeded in its first attempt, ")
    assert "agent desk asked for it, because “the sum was asked for”" in found.headline
    assert [line.kind for line in found.lines] == ["accepted", "accepted", "claimed", "intended", "succeeded"]
    assert "Agent desk asked for test.add for user ann in request ticket-1, under key why-1." in said(found)
    assert "took it for attempt 1, under fence 1." in said(found)
    # On a busy machine the claim took some of its minute.
    assert re.search(r"Attempt 1 began, in at most (60|5\d(\.\d)?) s; it changes nothing outside\.", said(found))
    assert "Attempt 1 succeeded after" in said(found)
    assert all(line.worker for line in found.lines if line.topic in ("attempt", "effect", "outcome"))


def test_attempts_that_failed_are_told_with_what_they_failed_of(house: House) -> None:
    found = ended(house.producer, "test.fail", {"times": 2})
    assert found.headline.startswith("It ran and succeeded in attempt 3, ")
    assert said(found).count(" with Retry: “not yet”; to be tried again after ") == 2


def test_a_job_that_was_refused_names_the_error_and_how_to_ask_anew(house: House) -> None:
    found = ended(house.producer, "test.raise", {"kind": "refused"}, request_id="r-refused")
    assert found.headline == (
        "It failed for good with Refused: “no, and that is final”. It is not tried again by itself."
    )
    assert "Attempt 1 failed for good after" in said(found)
    assert "which is final." in said(found)
    assert commands(found) == ["surefoot enqueue test.raise PARAMS --key NEW_KEY --request-id r-refused"]


def test_a_dead_job_says_of_what_and_its_command_revives_it(house: House) -> None:
    found = ended(house.producer, "test.fail", {"times": 9})
    assert found.headline.startswith("It is dead after 4 attempts with Retry: “not yet”. It surely had no effect")
    assert "and it was out of retries." in said(found)
    (command,) = commands(found)
    done = surefoot(house, *command.replace("REASON", "mended").split()[1:])
    assert done.returncode == 0
    house.producer.job(found.job_id).wait(20)
    assert "gave it one more attempt: “mended”." in said(house.producer.explain(found.job_id))


def test_a_job_in_doubt_says_what_to_look_up_and_its_commands_settle_it(house: House) -> None:
    found = ended(house.producer, "test.unsafe_unknown")
    assert found.headline.startswith(
        "Its last attempt ended with Unknown: “no answer”. Its effect may have happened, and nobody can say."
    )
    assert f"Look into the other side's books by the key {found.job_id}:" in found.next_steps[0].text
    assert [command.split()[3] for command in commands(found)] == ["--happened", "--retry", "--abandon"]
    assert surefoot(house, *commands(found)[2].replace("REASON", "lost").split()[1:]).returncode == 0
    assert house.producer.explain(found.job_id).headline.startswith("It was given up by a person")


def test_a_job_in_doubt_that_is_looked_up_says_what_was_found(house: House) -> None:
    book = str(house.folder / "book")
    found = ended(house.producer, "verified.transfer", {"book": book, "goes": ["lost"]})
    assert found.headline.startswith("It ran and succeeded by a look at the other side, ")
    assert "looked up whether the effect happened: it happened (it happened). It became succeeded." in said(found)


def test_a_fallback_is_named_with_the_rule_that_led_to_it(house: House) -> None:
    found = ended(house.producer, "fallback.value")
    assert found.headline.startswith("It has no result, by the rule “out of retries” with Retry: ")
    assert "its action's fallback stands in for one." in found.headline
    assert "There is no result, by the rule “out of retries”" in said(found)


def test_a_true_result_that_came_later_is_told_at_both_ends(house: House) -> None:
    params = {"log": str(house.folder / "superseded"), "open_at": 2}
    job = house.producer.enqueue("fallback.superseded_later", params).wait(20)
    assert job.state is State.DEGRADED
    waiting = house.producer.explain(job.id)
    assert "is to bring the true one, and is " in waiting.headline
    until(lambda: job.refresh().state is State.SUCCEEDED)
    found = house.producer.explain(job.id)
    assert "brought the true result" in said(found)
    (later,) = [line for line in found.lines if line.topic == "follow_up"]
    later_id = later.text.split()[1]
    assert "It is to bring the true result of job" in said(house.producer.explain(later_id))


def test_follow_ups_and_what_they_follow_name_one_another(house: House) -> None:
    found = ended(house.producer, "follow.plan", {"requests": [{"action": "test.add", "params": {"a": 1, "b": 2}}]})
    assert "and brought 1 follow-up." in said(found)
    (follow_up,) = [line for line in found.lines if line.topic == "follow_up"]
    child = house.producer.job(follow_up.text.split()[1]).wait(20)
    told = said(house.producer.explain(child.id))
    assert f"It follows job {found.job_id} (follow.plan, succeeded), whose action asked for it." in told


def test_a_schedule_s_job_names_its_schedule_and_tick(house: House) -> None:
    schedule = house.producer.schedules.add("why.tick", "test.add", {"a": 1, "b": 2}, every=1)
    job = until(lambda: house.producer.schedules.get(schedule.name).last_job_id)
    house.producer.schedules.remove(schedule.name)
    assert "It was made by schedule why.tick for its tick of 20" in said(house.producer.explain(job or ""))


def test_what_a_model_cost_is_told_by_attempt_and_in_all(house: House) -> None:
    found = ended(house.producer, "test.costly")
    assert "In all it spent 30 tokens in and 6 out, $0.004500." in found.headline
    assert said(found).count("That attempt spent 10 tokens in and 2 out, $0.001500.") == 3


def test_a_cancelled_job_names_who_and_why(house: House) -> None:
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2}, run_at=LATER, idempotency_key="cancel-me")
    job.cancel("not needed any more")
    found = house.producer.explain(job.id)
    assert found.headline == "It did not run: it was cancelled before its effect had begun, and nothing happened."
    assert "cancelled it: “not needed any more”. Nothing had happened." in said(found)


def test_a_job_for_later_says_when(house: House) -> None:
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2}, run_at=LATER, idempotency_key="later")
    found = house.producer.explain(job.id)
    assert found.headline.startswith(f"It does not run yet: it is for later, at {LATER:%Y-%m-%d %H:%M}")
    assert commands(found) == [f"surefoot cancel {job.id} --reason REASON"]


def test_a_job_past_its_deadline_says_so(house: House) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=1)
    job = house.producer.enqueue("test.add", {"a": 1, "b": 2}, run_at=LATER - timedelta(days=1), deadline=LATER)
    engine = open_engine(house.settings.database_url, connections=1, name="tests")
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET deadline_at = :at WHERE id = :id"), {"at": soon, "id": job.id})
    engine.dispose()
    until(lambda: job.refresh().state is State.EXPIRED)
    found = house.producer.explain(job.id)
    assert found.headline.startswith("It did not run: its deadline")
    assert "Its deadline passed before its effect had begun. Nothing happened." in said(found)


def test_a_job_that_runs_names_its_worker_and_that_somebody_wants_it_stopped(house: House) -> None:
    mark = house.folder / "go-on"
    job = house.producer.enqueue("test.effect", {"log": str(house.folder / "running"), "wait_for": str(mark)})
    until(lambda: job.refresh().state is State.RUNNING)
    found = house.producer.explain(job.id)
    assert found.headline.startswith("It is running: worker ")
    assert "under fence 1, in attempt 1 (unsafe)." in found.headline
    assert job.cancel("too late, perhaps") == "requested"
    found = house.producer.explain(job.id)
    assert found.headline.endswith("Somebody asked to cancel it; what has begun is not taken back.")
    assert "asked to cancel it while a worker had it: “too late, perhaps”." in said(found)
    mark.touch()
    job.wait(20)


def test_a_turn_that_waits_names_the_job_that_has_it_and_that_it_is_in_doubt(house: House) -> None:
    asked = {"conversation_id": "stuck", "text": "a", "doubt": True, "effect": "unsafe"}
    first = house.producer.enqueue("talk.say", asked, idempotency_key="turn-1").wait(20)
    assert first.state is State.IN_DOUBT
    second = house.producer.enqueue("talk.say", asked | {"text": "b"}, idempotency_key="turn-2")
    until(lambda: second.refresh().record.waiting_for == "conversation")
    found = house.producer.explain(second.id)
    assert found.headline == (
        f"It waits for its turn in conversation stuck: job {first.id} has it (talk.say, in_doubt), and until somebody"
        " resolves that, no turn follows."
    )
    assert commands(found) == [f"surefoot explain {first.id}"]
    assert f"the turn in its conversation is job {first.id}'s." in said(found)


def test_a_breaker_that_is_open_is_told_with_its_history_and_how_to_see_it(settings: Settings, tmp_path: Path) -> None:
    with house_of(settings, tmp_path) as house:
        Path(f"{tmp_path}/calls.broken").touch()
        jobs = house.producer.enqueue_many(
            {"action": "shaky.call", "params": {"log": str(tmp_path / "calls")}, "idempotency_key": f"k{n}"}
            for n in range(30)
        )
        held = until(lambda: [job for job in jobs if job.refresh().record.waiting_for == "breaker"])[0]
        found = until(
            lambda: explained_with(house.producer, held, "It waits for the breaker of shaky. It is open since")
        )
        assert found is not None
        assert "spent no attempt: the breaker of shaky was " in said(found)
        assert commands(found)[-2:] == [
            "surefoot breaker shaky",
            "surefoot breaker shaky close --for 10m --reason REASON",
        ]


def explained_with(producer: Producer, job: Job, words: str) -> Explanation | None:
    found = producer.explain(job.id)
    return found if words in found.headline else None


def test_a_job_that_nobody_takes_says_that_no_worker_may_be_there(lone_producer: Producer, settings: Settings) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2})
    found = lone_producer.explain(job.id)
    assert found.headline.startswith("It does not run yet: it is due for ")
    assert found.headline.endswith("no worker has taken it. That is not long.")
    engine = open_engine(settings.database_url, connections=1, name="tests")
    with engine.connect() as connection:
        connection.execute(text("UPDATE jobs SET due_at = due_at - interval '1 min'"))
        found = lone_producer.explain(job.id)
        assert "No worker has any job of queue actions just now: none may be running" in found.headline
        assert commands(found)[-1] == "surefoot-worker start -Q actions"
        connection.execute(text("UPDATE actions SET version = 7 WHERE name = 'test.add'"))
    engine.dispose()
    found = lone_producer.explain(job.id)
    assert "It was accepted for version 1 of its action, and workers publish version 7." in found.headline


def test_a_worker_that_died_is_named_with_who_took_over(own_house: House) -> None:
    job = own_house.producer.enqueue("test.keyed", {"log": str(own_house.folder / "log"), "die": True}).wait(40)
    found = own_house.producer.explain(job.id)
    assert "fell silent when its effect may have begun; " in said(found)
    assert "It has taken 1 worker down." in said(found)
    assert "about to happen, under the key " in said(found)


@pytest.fixture(scope="module")
def asked_twice(house: House) -> tuple[House, list[str]]:
    keys = ["cli-why-1", "cli-why-2"]
    for key in keys:
        params = {"a": 1, "b": len(key)}
        house.producer.enqueue("test.add", params, idempotency_key=key, request_id="cli-why").wait(20)
    return house, keys


def test_the_command_answers_by_id_by_key_and_by_request(asked_twice: tuple[House, list[str]]) -> None:
    house, keys = asked_twice
    job = house.producer.find("test.add", keys[0])
    assert job is not None
    by_id, by_key, by_request = (
        json_lines(surefoot(house, "explain", *asked, "--json"))
        for asked in ([str(job.id)], ["--key", keys[0]], ["--request-id", "cli-why"])
    )
    assert by_id == by_key
    assert [each["idempotency_key"] for each in by_request] == keys
    assert by_id[0]["lines"][0]["text"].startswith(
        "Somebody asked for test.add in request cli-why, under key cli-why-1."
    )
    for_people = surefoot(house, "explain", str(job.id)).stdout
    assert by_id[0]["headline"] in for_people.replace("\n", " ")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], "is one of JOB_ID, --key KEY and --request-id ID"),
        (["--key", "no-such-key"], "no job has the key 'no-such-key'"),
        (["ada-1"], "'ada-1' is not a job's id, which is a UUID; by its key it is --key, by its request --request-id"),
        (["--request-id", "nothing"], "no decision was made for request 'nothing'"),
        (["01a20800-0000-7000-8000-000000000000"], "is not in the ledger"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_one_line(house: House, command: list[str], words: str) -> None:
    done = surefoot(house, "explain", *command)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr


def test_what_somebody_asked_for_cannot_repaint_the_terminal(house: House) -> None:
    evil = "\x1b[2J\u202egone\x9b31m\n[red]FAKE[/red]"
    job = house.producer.enqueue("test.add", {"a": 1, "b": 3}, idempotency_key="evil", reasoning=evil).wait(20)
    for asked in ([str(job.id)], [str(job.id), "--json"]):
        shown = surefoot(house, "explain", *asked).stdout
        assert not set("\x1b\u202e\x9b") & set(shown)
        assert "[red]FAKE[/red]" in shown.replace("\n", "")
    (facts,) = json_lines(surefoot(house, "explain", str(job.id), "--json"))
    assert all("\n" not in line["text"] for line in facts["lines"])
    assert json.dumps(facts)


def test_secrets_are_taken_out(house: House) -> None:
    found = ended(house.producer, "test.raise", {"kind": "secret"}, reasoning="token=sk-abcdefghijklmnop1234567890")
    assert "hunter2secret" not in said(found)
    assert "sk-abcdefghijklmnop1234567890" not in said(found)


def test_a_worker_is_not_needed_to_answer(lone_producer: Producer, worker: WorkerProcess) -> None:
    job = lone_producer.enqueue("test.add", {"a": 1, "b": 2}).wait(20)
    worker.stop()
    assert lone_producer.explain(job.id).headline.startswith("It ran and succeeded")
