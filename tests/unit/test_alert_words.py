"""What alerts say: what, since when, how many, what next; no secrets, no params; and what the setting means."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from producer.breaker_words import Transition
from producer.ledger.states import State
from worker.alert_channels import addresses, doubts, without_address
from worker.alert_words import Level, Troubled, of_breaker, of_jobs, of_late, of_more, of_no_worker, of_recovery, span

OUT = "out of retries"
NOW = datetime(2026, 11, 26, 3, 12, 8, tzinfo=UTC)


def job(
    number: int = 1, *, state: State = State.DEAD, tenant: str = "default", why: str = "out of retries"
) -> Troubled:
    return Troubled(
        id=UUID(int=number),
        tenant=tenant,
        action="email.send",
        state=state,
        round=1,
        at=NOW + timedelta(seconds=number),
        why=why,
        error_type="SMTPServerDisconnected",
    )


def test_one_job_is_told_with_when_why_and_what_to_do() -> None:
    alert = of_jobs([job(state=State.IN_DOUBT, why="nobody can tell")])
    assert alert.title == "Surefoot: 1 job of email.send is in doubt"
    assert alert.body.splitlines() == [
        "1 job of email.send became in doubt at 2026-11-26 03:12:09 UTC, tenant default.",
        "Why: nobody can tell (SMTPServerDisconnected).",
        "Jobs: 00000000-0000-0000-0000-000000000001",
        (
            "Next: surefoot jobs --state in_doubt --action email.send; find out whether it happened, then surefoot"
            " resolve 00000000-0000-0000-0000-000000000001 --happened RESULT | --retry | --abandon --reason …"
        ),
    ]
    assert (alert.kind, alert.level, alert.recovered) == ("in_doubt", "error", False)


def test_many_jobs_are_told_with_the_first_ids_and_how_often_each_reason() -> None:
    alert = of_jobs([*map(job, range(1, 6)), job(6, why="it took too many workers down")])
    assert alert.title == "Surefoot: 6 jobs of email.send are dead"
    assert "between 2026-11-26 03:12:09 UTC and 2026-11-26 03:12:14 UTC" in alert.body
    assert "out of retries (SMTPServerDisconnected): 5; it took too many workers down" in alert.body
    assert f"{UUID(int=3)} and 3 more" in alert.body
    assert str(UUID(int=4)) not in alert.body
    assert len(alert.keys) == 6


def test_jobs_that_nobody_decided_are_told_as_an_error_with_the_policy_that_asked() -> None:
    alert = of_jobs([replace(job(state=State.EXPIRED, why="nobody decided what sums asked"), error_type=None)])
    assert (alert.kind, alert.level) == ("expired", "error")
    assert alert.title == "Surefoot: 1 job of email.send is expired, since nobody decided"
    assert "Why: nobody decided what sums asked.\n" in alert.body
    assert "surefoot explain 00000000-0000-0000-0000-000000000001. If it is still wanted" in alert.body


def test_commands_for_another_tenant_say_so() -> None:
    assert "Next: SUREFOOT_TENANT='a b' surefoot jobs --state dead" in of_jobs([job(tenant="a b")]).body


def move(was: str, becomes: str, reason: str = "5 failures in a row") -> Transition:
    return Transition(
        name="llm", epoch=1_795_662_728_000, was=was, becomes=becomes, reason=reason, who="host:1", until=NOW
    )


@pytest.mark.parametrize(
    ("was", "becomes", "level", "recovered", "title"),
    [
        ("closed", "open", "warning", False, "breaker llm is open"),
        ("open", "half-open", "info", False, "breaker llm is half-open"),
        ("half-open", "open", "info", False, "breaker llm is open"),
        ("half-open", "closed", "warning", True, "breaker llm is closed"),
        ("open", "closed", "warning", True, "breaker llm is closed"),
        ("closed", "closed", "info", False, "breaker llm stays closed"),
    ],
)
def test_a_transition_is_told_at_the_level_that_the_page_says(
    was: str,
    becomes: str,
    level: Level,
    recovered: bool,  # noqa: FBT001  a case
    title: str,
) -> None:
    alert = of_breaker(move(was, becomes))
    assert (alert.level, alert.recovered, alert.title) == (level, recovered, f"Surefoot: {title}")
    assert "surefoot breaker llm" in alert.body


def test_what_looks_like_a_secret_is_told_to_nobody() -> None:
    body = of_breaker(move("closed", "open", "they said password=hunter2secret and sk-abcdefghijklmnop1234")).body
    assert "hunter2secret" not in body
    assert "abcdefghijklmnop1234" not in body


def test_every_text_is_short_and_says_what_is_next() -> None:
    later = NOW + timedelta(minutes=7)
    alerts = [
        of_late(10_000, NOW, later, more=True),
        of_no_worker(NOW, later),
        of_recovery("late", NOW, later),
        of_more(Counter(dead=2, breaker=1)),
        of_jobs([job()]),
        of_breaker(move("closed", "open")),
    ]
    for alert in alerts:
        assert len(alert.title) < 80
        assert len(alert.body) < 800
        assert alert.body.splitlines()[-1].startswith("Next: ")
    assert "the oldest by 7 min" in alerts[0].title
    assert "more than 10000 jobs are due" in alerts[0].body
    assert alerts[3].title == "Surefoot: and 3 more"


@pytest.mark.parametrize(
    ("seconds", "said"), [(-3, "0 s"), (119, "119 s"), (120, "2 min"), (7_199, "119 min"), (7_200, "2 h")]
)
def test_a_span_is_told_in_the_unit_that_a_person_would_use(seconds: int, said: str) -> None:
    assert span(NOW, NOW + timedelta(seconds=seconds)) == said


def test_a_url_may_have_a_level_and_commas_and_is_never_shown() -> None:
    entries = ("slack://s3cr3t/a", "error=mailto://u:pw@host/?to=a@b.c", "d@e.f", "info=json://h/x")
    found = addresses(entries)
    assert [(each.name, each.minimum) for each in found] == [
        ("1:slack", "warning"),
        ("2:mailto", "error"),
        ("3:json", "info"),
    ]
    assert found[1].url == "mailto://u:pw@host/?to=a@b.c,d@e.f"
    assert "s3cr3t" not in repr(found)
    assert "pw" not in repr(found)


def test_what_apprise_does_not_understand_is_refused_by_its_place() -> None:
    assert list(doubts(("json://127.0.0.1/x", "slak://s3cr3t"))) == [
        "SUREFOOT_ALERT_URLS: 2:slak is no URL that Apprise can send to"
    ]


@pytest.mark.parametrize(
    ("url", "words", "told"),
    [
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdn", "no T1JJ3T3L2: a1brtd4jd", "no [redacted]: [redacted]"),
        ("json://u:a%2Fb@host/x", "not as u with a/b or a%2Fb", "not as [redacted] with [redacted] or [redacted]"),
        ("json://u:a%2Fb@host/x", f"Basic {b64encode(b'u:a/b').decode()}", "Basic [redacted]"),
        ("json://host/?key=geheim&to=a@b.c", "geheim went to b.c", "[redacted] went to [redacted]"),
        ("json://host/x", "it exits; sk-abcdefghijklmnop1234", "it exits; [redacted]"),
        ("json://host/a+b", "neither a b nor a+b", "neither [redacted] nor [redacted]"),
        ("json://[redacted]/x", "[redacted]", "[redacted]"),
        ("json://", "no host", "no host"),
    ],
)
def test_what_apprise_says_is_told_without_any_part_of_its_url_however_that_is_spelled(
    url: str, words: str, told: str
) -> None:
    assert without_address(words, url) == told
