"""What waits for people, from a terminal, with a real worker: looking, approving, rejecting, editing, dry runs."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from producer import Settings, State
from producer.cli.speaking import REFUSED
from producer.job import Job
from tests.acceptance.test_cli import run
from tests.houses import House, until
from tests.policy_actions import lines

SECONDS = 20.0


@pytest.fixture
def book(tmp_path: Path) -> str:
    return str(tmp_path / "book")


def done(settings: Settings, *words: str) -> str:
    result = run(settings, *words)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def refused(settings: Settings, *words: str) -> str:
    result: subprocess.CompletedProcess[str] = run(settings, *words)
    assert (result.returncode, result.stdout) == (REFUSED, "")
    return result.stderr


def facts(settings: Settings, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done(settings, *words, "--json").splitlines()]


def waiting(house: House, book: str, amount: float, key: str) -> Job:
    job = house.producer.enqueue(
        "gated.pay", {"book": book, "amount": amount}, user_id="ada", agent_id="bot", idempotency_key=key
    )
    until(lambda: job.refresh().state is State.AWAITING_APPROVAL, seconds=SECONDS)
    return job


def test_a_person_finds_sees_and_approves_what_waits(house: House, book: str) -> None:
    job = waiting(house, book, 250.0, "cli-1")
    listed = done(house.settings, "surefoot", "approvals", "--action", "gated.pay")
    assert re.search(r"pending +gated\.pay +ada, agent bot +100 or more +1 ", listed)
    shown = done(house.settings, "surefoot", "approval", str(job.id))
    (found,) = facts(house.settings, "surefoot", "approval", str(job.id))
    for told in (found["digest"], '"less": 250.0', "large_sums, version 1: 100 or more", "ben, eve, kim", "1 of 1"):
        assert told in shown
    asked = ("--digest", found["digest"], "--reason", "agreed on the phone")
    assert "is none of those who may decide" in refused(
        house.settings, "surefoot", "approve", found["id"], *asked, "--who", "mallory"
    )
    wrong = ("--digest", "0" * 64, "--reason", "blind", "--who", "ben")
    assert "has another digest" in refused(house.settings, "surefoot", "approve", found["id"], *wrong)
    said = done(house.settings, "surefoot", "approve", found["id"], *asked, "--who", "ben")
    assert said == f"approved: job {job.id} is queued\n"
    assert job.get(SECONDS) == 1
    assert "is approved by ben" in refused(house.settings, "surefoot", "reject", found["id"], *asked, "--who", "eve")
    (vote,) = facts(house.settings, "surefoot", "approval", found["id"])[0]["votes"]
    assert (vote["by"], vote["via"].split()[0], vote["reason"]) == ("ben", "cli", "agreed on the phone")


def test_a_person_rejects_and_nothing_happens(house: House, book: str) -> None:
    job = waiting(house, book, 250.0, "cli-2")
    (found,) = facts(house.settings, "surefoot", "approval", str(job.id))
    words = ("--digest", found["digest"], "--reason", "too much", "--who", "eve")
    assert done(house.settings, "surefoot", "reject", str(job.id), *words) == f"rejected: job {job.id} is rejected\n"
    assert facts(house.settings, "surefoot", "approvals", "--state", "rejected")[0]["id"] == found["id"]
    assert lines(book) == []


def test_who_asked_takes_it_back_and_another_edits_it(house: House, book: str) -> None:
    job = waiting(house, book, 250.0, "cli-3")
    taken = done(house.settings, "surefoot", "withdraw", str(job.id), "--reason", "never mind", "--who", "ada")
    assert taken == f"withdrawn: job {job.id} is cancelled\n"
    other = waiting(house, book, 250.0, "cli-4")
    (found,) = facts(house.settings, "surefoot", "approval", str(other.id))
    params = json.dumps({"book": book, "amount": 5.0})
    words = ("--digest", found["digest"], "--reason", "less is enough", "--who", "ben")
    (edited,) = facts(house.settings, "surefoot", "edit", found["id"], params, *words)
    assert edited["in_place_of"] == str(other.id)
    assert house.producer.job(edited["id"]).get(SECONDS) == 1
    assert [line["amount"] for line in lines(book)] == [5.0]


def test_roles_are_given_listed_and_taken(house: House) -> None:
    assert done(house.settings, "surefoot", "roles", "grant", "board", "olga", "--who", "root") == "olga has board\n"
    assert re.search(r"^board +olga +.* root *$", done(house.settings, "surefoot", "roles"), re.MULTILINE)
    (granted,) = [each for each in facts(house.settings, "surefoot", "roles", "list") if each["role"] == "board"]
    assert (granted["person"], granted["granted_by"]) == ("olga", "root")
    taken = done(house.settings, "surefoot", "roles", "revoke", "board", "olga", "--who", "root")
    assert taken == "olga has board no more\n"
    assert house.producer.acts(act="revoke role")[0].who == "root"
    assert done(house.settings, "surefoot", "roles", "revoke", "board", "olga") == "olga never had board\n"


def test_what_is_not_there_is_refused_in_one_line(house: House) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    assert "there is no approval" in refused(house.settings, "surefoot", "approval", nobody)
    assert "'x' is no id" in refused(house.settings, "surefoot", "approval", "x")


def test_policies_are_tried_over_past_jobs_beside_what_was_said(house: House, book: str) -> None:
    for number, (amount, user) in enumerate(((5.0, "ada"), (7.0, "mallory"))):
        house.producer.enqueue(
            "gated.pay", {"book": book, "amount": amount}, user_id=user, idempotency_key=f"dry-{number}"
        ).wait(SECONDS)
    before = len(lines(book))
    tried = facts(house.settings, "surefoot", "policy", "test", "--since", "1h", "--action", "gated.pay")
    of = {each["job_id"]: each for each in tried}
    for number, verdict in enumerate(("allow", "deny")):
        job = house.producer.find("gated.pay", f"dry-{number}")
        assert job is not None
        assert (of[str(job.id)]["verdict"], of[str(job.id)]["was"]) == (verdict, verdict)
    newer = {"SUREFOOT_ACTION_MODULES": "tests.policy_actions,tests.stricter_policies"}
    result = run(house.settings, "surefoot-worker", "policy", "test", "--since", "1h", **newer)
    assert result.returncode == 0
    assert re.search(r"^gated\.pay +allow +deny +[1-9]", result.stdout, re.MULTILINE)
    assert "would go another way" in result.stdout
    assert "nobody pays any more" in result.stdout
    assert len(lines(book)) == before
    assert house.producer.find("gated.pay", "dry-0").state is State.SUCCEEDED  # type: ignore[union-attr]  # as above
    assert "is no interval" in refused(house.settings, "surefoot-worker", "policy", "test", "--since", "soon")


def test_the_policies_of_the_code_are_listed_in_order(house: House) -> None:
    listed = done(house.settings, "surefoot-worker", "policy", "list")
    names = [line.split()[0] for line in listed.splitlines()[1:] if line and not line.startswith(" ")]
    ours = [name for name in names if name in ("large_sums", "no-strangers", "goes_wrong", "slow_but_fine")]
    assert ours == ["large_sums", "no-strangers", "goes_wrong", "slow_but_fine"]
