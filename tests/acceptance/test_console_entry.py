"""Who gets into the console, and how a session ends."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.acceptance.browsing import COOKIE, browser_of, said, signed_in, submit
from tests.api_process import Api, api_of
from tests.houses import House


def test_whoever_is_not_in_is_shown_the_way_in_and_comes_to_what_he_came_for(api: Api, house: House) -> None:
    _, key = house.producer.keys.create("ada", ["read"], who="tests")
    with browser_of(api) as browser:
        turned = browser.get("/console/jobs?state=dead")
        assert turned.status_code == 303
        shown = browser.get(turned.headers["location"])
        assert shown.status_code == 200
        to = re.search(r'name="to" value="([^"]+)"', shown.text)
        assert to is not None
        answer = browser.post("/console/sign-in", data={"key": key, "to": to[1]})
        assert answer.headers["location"] == "/console/jobs?state=dead"
        assert browser.get("/console/jobs?state=dead").status_code == 200


@pytest.mark.parametrize(
    "to",
    [
        "https://evil.example/console",
        "//evil.example/console",
        "/\\evil.example",
        "/\\/evil.example/console",
        "/v1/jobs",
        "/console/../v1",
        "javascript:alert(1)",
        "/console\r\nX: y",
        "/console/sign-out",
    ],
)
def test_nobody_is_sent_elsewhere_after_the_way_in(api: Api, house: House, to: str) -> None:
    _, key = house.producer.keys.create("ada", ["read"], who="tests")
    with browser_of(api) as browser:
        answer = browser.post("/console/sign-in", data={"key": key, "to": to})
    assert answer.status_code == 303
    location = answer.headers["location"]
    assert location == "/console" or (location.startswith("/console/") and location == to)


def test_a_session_is_a_cookie_that_no_script_reads_no_other_site_sends_and_that_holds_no_key(
    api: Api, house: House
) -> None:
    _, key = house.producer.keys.create("ada", ["read"], who="tests")
    with browser_of(api) as browser:
        plain = browser.post("/console/sign-in", data={"key": key}).headers["set-cookie"]
        told = {"X-Forwarded-Proto": "https"}
        behind_tls = browser.post("/console/sign-in", data={"key": key}, headers=told).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", "Path=/console", "Max-Age=43200"} <= set(plain.split("; "))
    assert key.rpartition("_")[2] not in plain
    assert "Secure" in behind_tls


def test_a_wrong_key_gets_nobody_in(api: Api) -> None:
    for key in ("", "sf_000000000000_" + "a" * 43, "nonsense", "\u202e"):
        with browser_of(api) as browser:
            refused = browser.post("/console/sign-in", data={"key": key})
        assert refused.status_code == 401
        assert "set-cookie" not in refused.headers
        assert key not in refused.text or not key


def test_a_session_that_was_tampered_with_or_made_up_is_none(api: Api, reader: httpx.Client) -> None:
    token = reader.cookies[COOKIE]
    version, key_id, expires, nonce, signature = token.split(".")
    flipped = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    for forged in (
        f"{version}.{key_id}.{expires}.{nonce}.{flipped}",
        f"{version}.{key_id}.{int(expires) + 1}.{nonce}.{signature}",
        f"{version}.{'0' * 12}.{expires}.{nonce}.{signature}",
        token + "a",
        "",
    ):
        assert api.client.get("/console", headers={"Cookie": f"{COOKIE}={forged}"}).status_code == 303
    assert api.client.get("/console", headers={"Cookie": f"{COOKIE}={token}"}).status_code == 200


def test_a_key_that_is_revoked_ends_its_sessions_at_once(api: Api, house: House) -> None:
    record, key = house.producer.keys.create("leaver", ["read"], who="tests")
    with browser_of(api) as browser:
        browser.post("/console/sign-in", data={"key": key})
        assert browser.get("/console").status_code == 200
        house.producer.keys.revoke(record.id, who="tests")
        assert browser.get("/console").status_code == 303
        look = browser.get("/console", headers={"HX-Request": "true", "X-Seen": "x"})
        assert look.headers["hx-redirect"].startswith("/console/sign-in")


def test_signing_out_ends_the_session_in_this_browser(api: Api, house: House) -> None:
    with signed_in(api, house, "read") as browser:
        submit(browser, "/console", "/console/sign-out")
        assert browser.get("/console").status_code == 303


@pytest.fixture(scope="module")
def proxied(house: House) -> Iterator[Api]:
    environment = {
        "SUREFOOT_CONSOLE_PROXIES": "127.0.0.0/8",
        "SUREFOOT_CONSOLE_USER_HEADER": "X-User",
        "SUREFOOT_CONSOLE_SCOPES_HEADER": "X-Scopes",
    }
    with api_of(house.settings, house.folder, environment) as made:
        yield made


def test_a_proxy_that_is_listed_is_believed_who_somebody_is_and_what_he_may(proxied: Api, client: httpx.Client) -> None:
    job = said(client)
    headers = {"X-User": "grace@example.com", "X-Scopes": "read, nonsense"}
    shown = proxied.client.get(f"/console/jobs/{job}", headers=headers)
    assert shown.status_code == 200
    assert "grace@example.com" in shown.text
    assert proxied.client.get("/console/breakers", headers=headers).status_code == 403
    assert proxied.client.get("/console", headers={"X-User": "grace@example.com"}).status_code == 403
    for nobody in ({}, {"X-User": ""}, {"X-User": "x" * 300}):
        assert proxied.client.get("/console", headers=nobody).status_code == 303


def test_what_a_proxy_says_is_nothing_where_none_is_listed(api: Api) -> None:
    headers = {"X-Forwarded-User": "grace", "X-User": "grace", "X-Scopes": "admin", "X-Forwarded-For": "127.0.0.1"}
    assert api.client.get("/console", headers=headers).status_code == 303
