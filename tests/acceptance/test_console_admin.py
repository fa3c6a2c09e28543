"""What the console has for whoever runs the house: what can be asked for, who did what, who may come in."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.asking import enqueue, problem
from tests.acceptance.browsing import browser_of, form_token, signed_in, submit
from tests.api_process import Api, bearer
from tests.houses import House

MADE = re.compile(r"sf_[a-z0-9]{12}_[A-Za-z0-9]{43}")


@pytest.fixture
def leaver(house: House) -> tuple[str, str]:
    """The id of a key that somebody has, and itself."""
    record, key = house.producer.keys.create("leaver", ["read"], who="tests")
    return record.id, key


def test_the_actions_are_listed_and_each_says_what_it_takes_and_what_becomes_of_it(reader: httpx.Client) -> None:
    listed = reader.get("/console/actions").text
    for name in ("test.add", "gated.pay", "note.write"):
        assert f"/console/action?name={name}" in listed
    shown = reader.get("/console/action", params={"name": "gated.pay"}).text
    gates = ("large_sums</bdi></a>, version 1", "no-strangers</bdi></a>, version 3")
    for words in ("keyed", "version 1", "book", "amount", "number", *gates):
        assert words in shown
    assert "note.strike" in reader.get("/console/action", params={"name": "note.write"}).text
    assert "/console/jobs?action=gated.pay" in shown


def test_an_action_that_nobody_published_is_a_page_that_says_so(reader: httpx.Client) -> None:
    for name in ("test.ad", "\u202e", "<b>", "x" * 3_000):
        shown = reader.get("/console/action", params={"name": name})
        assert (shown.status_code, "no worker has published" in shown.text) == (404, True)
    assert reader.get("/console/action").status_code == 400


def test_a_budget_is_named_where_it_covers_an_action(reader: httpx.Client, house: House) -> None:
    for name, actions in (("covers-notes", ["note.*"]), ("covers-talk", ["talk.*"])):
        house.producer.budgets.add(name, per=["tenant"], actions=actions, calls=10, reason="to be seen", who="tests")
    shown = reader.get("/console/action", params={"name": "note.write"}).text
    assert "covers-notes" in shown
    assert "covers-talk" not in shown


def test_the_acts_are_listed_with_who_what_from_where_and_why_and_found_by_each(
    reader: httpx.Client, operator: httpx.Client, house: House, client: httpx.Client
) -> None:
    job = enqueue(client, {"action": "test.add", "params": {"a": 1, "b": 2}, "run_at": "2099-01-01T00:00:00Z"})
    job_id = job.json()["job"]["id"]
    page = f"/console/jobs/{job_id}"
    submit(operator, page, f"{page}/cancel", reason="asked for <b>twice</b>")
    house.producer.schedules.add("seen", "test.add", {"a": 1, "b": 2}, every=3_600)
    shown = reader.get("/console/acts").text
    for words in ("asked for &lt;b&gt;twice", "console, key ", " from 127.0.0.1", page, "/console/schedule?name=seen"):
        assert words in shown
    for found in ({"who": "ada"}, {"act": "cancel"}, {"job": job_id}, {"age": "hour"}):
        assert "asked for &lt;b&gt;twice" in reader.get("/console/acts", params=found).text
    for other in ({"who": "nobody"}, {"act": "erase"}, {"job": "01890000-0000-7000-8000-000000000000"}):
        assert "Nobody did such a thing." in reader.get("/console/acts", params=other).text
    for wrong in ({"cursor": "0"}, {"cursor": "x"}, {"job": "x"}, {"who": "\0"}, {"cursor": str(2**63)}):
        assert reader.get("/console/acts", params=wrong).status_code == 400
    assert f"/console/acts?job={job_id}" in reader.get(page).text


def test_the_acts_are_paged(reader: httpx.Client, house: House) -> None:
    for number in range(52):
        house.producer.keys.create(f"number {number}", ["read"], who="many")
    first = reader.get("/console/acts", params={"who": "many"}).text
    assert first.count("create key</b>") == 50
    older = re.search(r'rel="next" href="([^"]+)"', first)
    assert older is not None
    rest = reader.get(older[1].replace("&amp;", "&")).text
    assert rest.count("create key</b>") == 2
    assert 'rel="next"' not in rest


def test_a_key_is_made_in_the_console_shown_once_and_works(
    admin: httpx.Client, api: Api, house: House, reader: httpx.Client
) -> None:
    fields = {
        "name": "billing",
        "scope_enqueue": "1",
        "scope_read": "1",
        "days": "30",
        "rate": "50",
        "reason": "ticket 7",
    }
    shown = submit(admin, "/console/keys", "/console/keys/create", **fields)
    assert shown.status_code == 200
    assert shown.headers["cache-control"] == "no-store"
    (key,) = set(MADE.findall(shown.text))
    assert api.client.get("/v1/actions", headers=bearer(key)).status_code == 200
    listed = admin.get("/console/keys").text
    assert "billing" in listed
    assert key not in listed
    (record,) = (each for each in house.producer.keys.list() if each.name == "billing")
    assert (record.scopes, record.rate_per_second) == (("enqueue", "read"), 50.0)
    assert record.expires_at is not None
    assert record.created_by.startswith("ada (key ")
    assert key.rpartition("_")[2] not in api.log.read_text()
    assert record.id in reader.get("/console/acts", params={"act": "create key"}).text


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": " "}, "name: is missing"),
        ({"scope_read": ""}, "scopes: are missing"),
        ({"days": "1000"}, "days: is none of those"),
        ({"rate": "fast"}, "rate: is no number"),
        ({"rate": "nan"}, "rate_per_second"),
        ({"reason": "x" * 5_000}, "reason: has 5,000 characters"),
    ],
)
def test_what_cannot_be_a_key_makes_none(admin: httpx.Client, house: House, wrong: dict[str, str], words: str) -> None:
    before = len(house.producer.keys.list())
    fields = {"name": "billing", "scope_read": "1", "days": "", "rate": "200"} | wrong
    refused = submit(admin, "/console/keys", "/console/keys/create", **fields)
    assert (refused.status_code, words in refused.text) == (400, True)
    assert len(house.producer.keys.list()) == before


def test_a_key_is_revoked_at_once_or_after_an_overlap(
    admin: httpx.Client, api: Api, house: House, leaver: tuple[str, str]
) -> None:
    key_id, key = leaver
    path = f"/console/keys/{key_id}/revoke"
    later = submit(admin, "/console/keys", path, days="7", reason="they change over")
    assert "goes on until then" in later.text
    assert api.client.get("/v1/actions", headers=bearer(key)).status_code == 200
    assert "refused from now on" in submit(admin, "/console/keys", path, days="0").text
    assert problem(api.client.get("/v1/actions", headers=bearer(key))) == (401, "unauthenticated")
    assert submit(admin, "/console/keys", path, days="0").status_code == 404
    assert submit(admin, "/console/keys", path, days="0.5").status_code == 400
    assert "they change over" in admin.get("/console/acts", params={"act": "revoke key"}).text
    assert [each.standing for each in house.producer.keys.list() if each.id == key_id] == ["revoked"]


def test_who_revokes_his_own_key_is_warned_and_out(api: Api, house: House) -> None:
    with signed_in(api, house, "admin", name="herself") as browser:
        listed = browser.get("/console/keys").text
        assert "at once, it signs you out" in listed
        (own,) = (each.id for each in house.producer.keys.list() if each.name == "herself")
        submit(browser, "/console/keys", f"/console/keys/{own}/revoke", days="0")
        assert browser.get("/console").headers["location"].startswith("/console/sign-in")


def test_roles_are_given_and_taken(admin: httpx.Client, house: House) -> None:
    fields = {"role": "treasury", "person": "kim"}
    assert "He has that role." in submit(admin, "/console/keys", "/console/roles/grant", **fields).text
    assert "treasury" in admin.get("/console/keys").text
    assert ("treasury", "kim") in [(each.role, each.person) for each in house.producer.roles.list()]
    assert "no more" in submit(admin, "/console/keys", "/console/roles/revoke", **fields).text
    assert "treasury" not in [each.role for each in house.producer.roles.list()]
    assert submit(admin, "/console/keys", "/console/roles/grant", role="", person="kim").status_code == 400


@pytest.fixture(scope="module")
def everybody_else(api: Api, house: House) -> Iterator[httpx.Client]:
    """Somebody who may do all but administer."""
    with signed_in(api, house, "read", "operate", "approve", "enqueue") as browser:
        yield browser


def test_who_may_not_administer_sees_no_keys_makes_none_and_ends_none(
    everybody_else: httpx.Client, house: House, leaver: tuple[str, str]
) -> None:
    shown = everybody_else.get("/console")
    assert "/console/keys" not in shown.text
    assert everybody_else.get("/console/keys").status_code == 403
    before = len(house.producer.keys.list())
    token = {"form_token": form_token(shown)}
    for path, fields in (
        ("/console/keys/create", {"name": "me", "scope_admin": "1", "days": "", "rate": "200"}),
        (f"/console/keys/{leaver[0]}/revoke", {"days": "0"}),
        ("/console/roles/grant", {"role": "finance", "person": "me"}),
        ("/console/roles/revoke", {"role": "finance", "person": "ben"}),
    ):
        assert everybody_else.post(path, data=fields | token).status_code == 403
    assert [each.standing for each in house.producer.keys.list() if each.id == leaver[0]] == ["active"]
    assert len(house.producer.keys.list()) == before


@pytest.mark.parametrize(
    ("headers", "has_token"),
    [
        pytest.param({"Sec-Fetch-Site": "cross-site"}, True, id="another site's form"),
        pytest.param({"Sec-Fetch-Site": "same-origin"}, False, id="without the token"),
    ],
)
def test_a_form_from_elsewhere_makes_no_key_and_ends_none(
    admin: httpx.Client, house: House, leaver: tuple[str, str], headers: dict[str, str], *, has_token: bool
) -> None:
    token = form_token(admin.get("/console/keys")) if has_token else "0" * 64
    before = len(house.producer.keys.list())
    for path, fields in (
        ("/console/keys/create", {"name": "me", "scope_admin": "1", "days": "", "rate": "200"}),
        (f"/console/keys/{leaver[0]}/revoke", {"days": "0"}),
        ("/console/roles/grant", {"role": "finance", "person": "me"}),
    ):
        assert admin.post(path, data=fields | {"form_token": token}, headers=headers).status_code == 403
    assert len(house.producer.keys.list()) == before


def test_another_tenant_s_admin_sees_none_of_it(api: Api, house: House, leaver: tuple[str, str]) -> None:
    _, key = house.producer.for_tenant("other").keys.create("theirs", ["admin"], who="tests")
    with browser_of(api) as browser:
        browser.post("/console/sign-in", data={"key": key})
        for path in ("/console/keys", "/console/acts"):
            assert leaver[0] not in browser.get(path).text
        assert submit(browser, "/console/keys", f"/console/keys/{leaver[0]}/revoke", days="0").status_code == 404
    assert [each.standing for each in house.producer.keys.list() if each.id == leaver[0]] == ["active"]
