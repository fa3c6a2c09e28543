"""What may be done in the console, by whom, and what cannot be done from elsewhere."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import redis

from producer import State
from producer.breaker_words import held_key_of
from tests.acceptance.asking import publish_policy, set_state
from tests.acceptance.browsing import browser_of, form_token, said, signed_in, submit
from tests.api_process import Api
from tests.houses import House, until


def test_a_reader_sees_and_is_offered_nothing_to_do(
    reader: httpx.Client, operator: httpx.Client, client: httpx.Client, later: str
) -> None:
    assert f"/console/jobs/{later}/cancel" in operator.get(f"/console/jobs/{later}").text
    shown = reader.get(f"/console/jobs/{later}")
    assert "/cancel" not in shown.text
    forced = reader.post(f"/console/jobs/{later}/cancel", data={"form_token": form_token(shown), "reason": "r"})
    assert forced.status_code == 403
    assert reader.get("/console/breakers").status_code == 403
    assert client.get(f"/v1/jobs/{later}").json()["state"] == "queued"


def test_a_key_that_may_not_read_sees_no_page(api: Api, house: House) -> None:
    with signed_in(api, house, "enqueue") as browser:
        assert browser.get("/console").status_code == 403
        assert browser.get("/console/jobs").status_code == 403


def test_another_tenants_jobs_are_not_there(api: Api, house: House, client: httpx.Client) -> None:
    job = said(client, request_id="ours-alone")
    _, key = house.producer.for_tenant("other").keys.create("theirs", ["read", "operate"], who="tests")
    with browser_of(api) as browser:
        browser.post("/console/sign-in", data={"key": key})
        assert browser.get(f"/console/jobs/{job}").status_code == 404
        assert browser.get("/console/chain", params={"request": "ours-alone"}).status_code == 404
        assert job not in browser.get("/console/jobs").text


@pytest.mark.parametrize(
    ("headers", "has_token"),
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, True, id="another site's form"),
        pytest.param({"Sec-Fetch-Site": "same-site"}, True, id="a neighbour's form"),
        pytest.param({"Sec-Fetch-Site": "", "Origin": "https://evil.example"}, True, id="another origin"),
        pytest.param({"Sec-Fetch-Site": "", "Origin": "null"}, True, id="no origin"),
        pytest.param({"Sec-Fetch-Site": "same-origin"}, False, id="without the token"),
    ],
)
def test_a_form_from_elsewhere_does_nothing(
    operator: httpx.Client, client: httpx.Client, headers: dict[str, str], *, has_token: bool, later: str
) -> None:
    page = operator.get(f"/console/jobs/{later}")
    fields = {"reason": "r", "form_token": form_token(page) if has_token else "0" * 64}
    assert operator.post(f"/console/jobs/{later}/cancel", data=fields, headers=headers).status_code == 403
    assert client.get(f"/v1/jobs/{later}").json()["state"] == "queued"


def test_a_browser_that_says_only_of_which_origin_a_form_is_is_believed(
    operator: httpx.Client, api: Api, house: House, later: str
) -> None:
    fields = {"reason": "r", "form_token": form_token(operator.get(f"/console/jobs/{later}"))}
    headers = {"Sec-Fetch-Site": "", "Origin": api.url}
    assert operator.post(f"/console/jobs/{later}/cancel", data=fields, headers=headers).status_code == 303
    assert house.producer.job(later).state is State.CANCELLED


def test_another_session_s_form_does_nothing(
    operator: httpx.Client, admin: httpx.Client, client: httpx.Client, later: str
) -> None:
    theirs = form_token(admin.get(f"/console/jobs/{later}"))
    refused = operator.post(f"/console/jobs/{later}/cancel", data={"reason": "r", "form_token": theirs})
    assert refused.status_code == 403
    assert client.get(f"/v1/jobs/{later}").json()["state"] == "queued"


def test_a_job_is_cancelled_with_a_reason_that_its_history_keeps(
    operator: httpx.Client, house: House, later: str
) -> None:
    page = f"/console/jobs/{later}"
    shown = submit(operator, page, f"{page}/cancel", reason="not wanted\r\nany more")
    assert "It is cancelled." in shown.text
    assert house.producer.job(later).state is State.CANCELLED
    (act,) = house.producer.acts(job_id=later)
    assert act.who.startswith("ada (key ")
    assert act.via.startswith("console, key ")
    assert act.via.endswith(" from 127.0.0.1")
    assert any((event.data or {}).get("reason") == "not wanted\nany more" for event in house.producer.job(later).events)


def test_a_dead_job_gets_one_more_attempt(operator: httpx.Client, house: House, later: str) -> None:
    set_state(house, later, "dead")
    page = f"/console/jobs/{later}"
    assert "reason: is missing" in submit(operator, page, f"{page}/retry", reason="  ").text
    assert "It gets one more attempt." in submit(operator, page, f"{page}/retry", reason="their server is up").text
    assert house.producer.job(later).wait(30).state is State.SUCCEEDED
    assert (
        "cannot be retried"
        in operator.post(f"{page}/retry", data={"reason": "r", "form_token": form_token(operator.get(page))}).text
    )


def test_a_job_in_doubt_is_resolved_by_a_verdict_a_result_and_a_reason(
    operator: httpx.Client, house: House, later: str
) -> None:
    set_state(house, later, "in_doubt", doubt=True)
    page, act = f"/console/jobs/{later}", f"/console/jobs/{later}/resolve"
    for wrong in ({"verdict": "happened", "result": '{"total": "3"}'}, {"verdict": "happened", "result": "{"}, {}):
        assert submit(operator, page, act, reason="their books", **wrong).status_code == 400
    assert house.producer.job(later).state is State.IN_DOUBT
    done = submit(operator, page, act, verdict="happened", result='{"total": 3}', reason="their books")
    assert "That is recorded." in done.text
    job = house.producer.job(later)
    assert (job.state, job.result) == (State.SUCCEEDED, {"total": 3})
    assert str((job.events[-1].data or {})["who"]).startswith("ada (key ")


def test_a_breaker_is_overridden_and_left_to_itself_again(admin: httpx.Client, house: House) -> None:
    page = "/console/breaker?name=test"
    for word, minutes in (("open", "5"), ("auto", "")):
        shown = submit(
            admin, page, "/console/breakers/force", name="test", word=word, minutes=minutes, reason="maintenance"
        )
        assert "The whole fleet goes by that." in shown.text
        assert house.producer.breakers.get("test").forced == ("open" if word == "open" else None)
    assert "maintenance" in admin.get(page).text
    assert "ada (key " in admin.get(page).text
    assert submit(admin, page, "/console/breakers/force", name="test", word="x", reason="r").status_code == 400
    missing = submit(admin, page, "/console/breakers/force", name="tset", word="open", reason="r")
    assert (missing.status_code, "did you mean" in missing.text) == (404, True)


def test_a_policy_is_seen_where_it_stands_before_an_action_and_retired_by_an_admin(
    admin: httpx.Client, reader: httpx.Client, house: House
) -> None:
    publish_policy(house, "adders-<b>all", "test.ad?")
    publish_policy(house, "of-nothing", "nothing.*")
    page = "/console/actions/policies"
    assert "adders-&lt;b&gt;all" in reader.get("/console/action?name=test.add").text
    shown = reader.get(page).text
    for words in (
        "adders-&lt;b&gt;all",
        "test.ad?",
        "/console/action?name=test.add",
        "which is no action that a worker",
    ):
        assert words in shown
    assert "/policies/retire" not in shown
    assert submit(admin, page, f"{page}/retire", name="adders", reason="gone").status_code == 404
    assert submit(admin, page, f"{page}/retire", name="of-nothing", reason="").status_code == 400
    for name in ("adders-<b>all", "of-nothing"):
        done = submit(admin, page, f"{page}/retire", name=name, reason="gone\r\nat last")
        assert "Nobody needs it any more." in done.text
    assert "of-nothing" not in [each.name for each in house.producer.policies.list()]
    assert "of-nothing" not in admin.get(page).text
    (act, _) = house.producer.acts(act="retire policy")
    assert (act.target, act.reason, act.who.partition(" ")[0]) == ("of-nothing", "gone\nat last", "ada")


def test_who_asked_for_patience_is_seen_with_until_when_and_why(admin: httpx.Client, house: House) -> None:
    assert "asked for patience" not in admin.get("/console/breakers").text
    with redis.Redis.from_url(house.settings.redis_url) as client:
        client.set(held_key_of("test"), "429, slow down", px=60_000)
        try:
            assert "asked for patience until" in admin.get("/console/breakers").text
            assert "1 asked for patience" in admin.get("/console").text
            shown = admin.get("/console/breaker?name=test").text
            assert "Asked for patience" in shown
            assert "429, slow down" in shown
        finally:
            client.delete(held_key_of("test"))


def test_a_schedule_is_paused_and_resumed(operator: httpx.Client, house: House) -> None:
    house.producer.schedules.add("nightly", "test.add", {"a": 1, "b": 2}, cron="0 3 * * *")
    page = "/console/schedule?name=nightly"
    assert "nightly" in operator.get("/console/schedules").text
    assert "It makes no more jobs" in submit(operator, page, "/console/schedules/pause", name="nightly").text
    assert house.producer.schedules.get("nightly").paused_by == "person"
    assert "It goes on" in submit(operator, page, "/console/schedules/resume", name="nightly").text
    assert house.producer.schedules.get("nightly").paused_at is None


def test_a_budget_is_seen_by_readers_and_set_by_admins(admin: httpx.Client, reader: httpx.Client, house: House) -> None:
    house.producer.budgets.add("calls-a-day", per=["tenant", "day"], calls=10, reason="to begin with", who="tests")
    page = "/console/budget?name=calls-a-day"
    assert "calls-a-day" in reader.get("/console/budgets").text
    assert "/budgets/set" not in reader.get(page).text
    fields = {"name": "calls-a-day", "reason": "it is December"}
    refused = reader.post("/console/budgets/set", data=fields | {"form_token": form_token(reader.get(page))})
    assert refused.status_code == 403
    shown = submit(admin, page, "/console/budgets/set", usd="12.50", tokens="", calls="20", **fields)
    assert "These ceilings are in force." in shown.text
    ceilings = house.producer.budgets.get("calls-a-day").ceilings
    assert (str(ceilings.usd), ceilings.tokens, ceilings.calls) == ("12.500000000", None, 20)
    assert submit(admin, page, "/console/budgets/set", calls="many", **fields).status_code == 400
    submit(admin, page, "/console/budgets/reset", **fields)
    assert house.producer.budgets.get("calls-a-day").ceilings.usd is None


def test_what_a_job_did_is_taken_back_by_another(operator: httpx.Client, house: House, tmp_path: Path) -> None:
    job = house.producer.enqueue("note.write", {"book": str(tmp_path / "book"), "words": "a"})
    job.get(30)
    page = f"/console/jobs/{job.id}"
    assert "note.strike" in operator.get(page).text
    shown = submit(operator, page, f"{page}/undo", reason="it was wrong")
    assert "This takes the other back." in shown.text
    until(lambda: (tmp_path / "book").read_text().count("struck"))
