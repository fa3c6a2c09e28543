"""The console in a real browser, before a real stack: what moves by itself, and what only a browser can show."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from producer import State
from producer.ledger.keys import Scope
from tests.acceptance.asking import enqueue, set_state
from tests.acceptance.browsing import said
from tests.acceptance.chromium import chromium, needs_chromium, opened
from tests.api_process import Api
from tests.houses import House, until

pytestmark = needs_chromium

PHONE = {"width": 390, "height": 844}
HOSTILE = (
    "<script>window.owned = 1</script><img src=x onerror='window.owned = 1'>",
    '" onmouseover="window.owned = 1" x=\'',
    "gnp.exe\u202egpj \u2066\u200b\x1b[2J",
    "word" * 10_000,
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def key(house: House) -> str:
    scopes: list[Scope] = ["read", "operate", "approve", "admin"]
    _, made = house.producer.keys.create("ben", scopes, who="tests", rate_per_second=10_000)
    return made


@pytest.fixture
def page(browser: Browser, api: Api, key: str) -> Iterator[Page]:
    with opened(browser, api.url, key) as made:
        yield made


def test_a_job_that_was_asked_for_over_http_is_watched_until_it_is_done(
    page: Page, client: httpx.Client, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    asked = {"action": "test.effect", "params": {"log": str(tmp_path / "log"), "wait_for": str(gate)}}
    job = enqueue(client, asked).json()["job"]["id"]
    page.goto("/console/jobs")
    page.locator(f'a[href="/console/jobs/{job}"]').click()
    expect(page.locator("h1 .state")).to_have_text("running")
    gate.touch()
    expect(page.locator("h1 .state")).to_have_text("succeeded")  # by itself
    expect(page.locator("#live")).not_to_have_attribute("hx-trigger", re.compile("."))  # and it asks no more


def test_a_job_in_doubt_is_found_on_the_overview_and_resolved(
    page: Page, house: House, client: httpx.Client, later: str
) -> None:
    set_state(house, later, "in_doubt", doubt=True)
    page.goto("/console")
    page.locator(f'a[href="/console/jobs/{later}"]').first.click()
    page.get_by_role("radio", name="It happened").check()
    page.get_by_label("Its result").fill('{"total": 3}')
    page.get_by_label("Reason").first.fill("their books have it")
    page.get_by_role("button", name="Record it").click()
    expect(page.get_by_text("That is recorded.")).to_be_visible()
    expect(page.locator("h1 .state")).to_have_text("succeeded")
    assert client.get(f"/v1/jobs/{later}").json()["result"] == {"total": 3}


def test_a_request_is_read_from_top_to_bottom(page: Page, client: httpx.Client) -> None:
    request = f"order {uuid4()}"
    for number in range(3):
        said(client, request_id=request, params={"a": number, "b": 0}, reasoning=f"thought {number}")
    page.locator(".find input").fill(request)
    page.locator(".find input").press("Enter")
    expect(page.locator("h1")).to_contain_text(request)
    expect(page.locator(".timeline > li")).to_have_count(3)
    tops = [page.get_by_text(f"thought {number}").bounding_box() for number in range(3)]
    heights = [box["y"] for box in tops if box is not None]
    assert heights == sorted(heights)
    assert len(heights) == 3
    page.locator(".timeline a.row").nth(1).click()
    expect(page.locator(".around [aria-current]")).to_contain_text("2")


def test_what_waits_for_a_person_is_approved_as_it_was_seen_and_runs(page: Page, house: House, tmp_path: Path) -> None:
    params = {"book": str(tmp_path / "book"), "amount": 500.0}
    job = house.producer.enqueue("gated.pay", params, user_id="ada", reasoning="she is owed it")
    until(lambda: job.refresh().state is State.AWAITING_APPROVAL)
    page.goto(f"/console/jobs/{job.id}")
    page.get_by_role("link", name="100 or more").click()
    expect(page.get_by_role("heading", name="What it would change")).to_be_visible()
    page.get_by_label("Reason").first.fill("agreed on the phone")
    page.get_by_role("button", name="Approve exactly this").click()
    expect(page.get_by_text("Your approval is recorded.")).to_be_visible()
    page.locator(".crumbs").get_by_role("link", name=f"Job {job.id}").click()
    expect(page.locator("h1 .state")).to_have_text("succeeded")
    expect(page.locator(".history")).to_contain_text("ben")


@pytest.mark.parametrize("words", HOSTILE, ids=["markup", "attribute", "turned around", "long"])
def test_hostile_words_do_nothing_and_move_nothing(page: Page, client: httpx.Client, words: str) -> None:
    request = str(uuid4())
    asked = {"action": "test.echo", "params": {"value": {words: words}}, "reasoning": words, "request_id": request}
    job = enqueue(client, asked, wait=30).json()["job"]["id"]
    page.set_viewport_size({"width": 390, "height": 844})
    for path in (f"/console/jobs/{job}", f"/console/chain?request={request}"):
        page.goto(path)
        assert page.evaluate("window.owned") is None
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert page.evaluate("document.querySelectorAll('script:not([src]), #live img').length") == 0
        assert "\u202e" not in page.content()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, {"width": 1_280, "height": 800}], ids=["phone", "wide"])
def test_every_page_fits_obeys_its_own_policy_and_can_be_read(
    browser: Browser, api: Api, key: str, client: httpx.Client, house: House, scheme: str, size: dict[str, int]
) -> None:
    job = said(client, request_id="fits", reasoning="because " * 50, input={"a": ["b" * 300]})
    house.producer.schedules.add("fits", "test.add", {"a": 1, "b": 2}, every=3_600)
    budget = house.producer.budgets.add(f"fits-{uuid4()}", per=["tenant"], calls=10, reason="to be seen", who="tests")
    house.producer.roles.grant("finance", "kim", who="tests")
    asked = house.producer.enqueue("gated.pay", {"book": "/dev/null", "amount": 500.0}, user_id="ada")
    (approval,) = until(lambda: house.producer.approvals.of_job(asked.id))
    paths = [
        "",
        "/jobs",
        f"/jobs/{job}",
        "/chain?request=fits",
        "/approvals",
        "/budgets",
        "/schedules",
        "/schedule?name=fits",
        f"/approvals/{approval.id}",
        f"/budget?name={budget.name}",
        "/actions",
        "/action?name=gated.pay",
        "/action?name=llm.chat",
        "/acts",
        "/breakers",
        "/breaker?name=test",
        "/keys",
        "/nowhere",
    ]
    lost = "Failed to load resource.*404"  # what Chromium itself says of a page that is not there
    with opened(browser, api.url, key, expected=lost, color_scheme=scheme, viewport=size) as page:
        for path in paths:
            page.goto(f"/console{path}")
            page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
            assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
            contrasts = page.evaluate(CONTRASTS)
            assert [each for each in contrasts if each["ratio"] < 4.5] == [], path


def test_it_can_be_used_by_keyboard_alone(page: Page, client: httpx.Client) -> None:
    job = said(client)
    page.goto("/console/jobs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the page"
    page.keyboard.press("j")
    first = page.evaluate("document.activeElement.getAttribute('href')")
    assert first == f"/console/jobs/{job}"
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text("test.add")
    page.keyboard.press("/")
    page.keyboard.type(job)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/console/jobs/{job}")
    page.locator("main").focus()
    page.keyboard.press("g")
    page.wait_for_url("**/console")


def test_a_key_is_made_by_keyboard_shown_once_and_loading_that_page_anew_makes_no_other(
    page: Page, house: House
) -> None:
    name = f"by hand {uuid4()}"
    page.goto("/console/keys")
    page.get_by_label("Who or what will have it").focus()
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.name") == "scope_read"
    page.keyboard.press("Space")
    page.get_by_label("Requests a second").press("Enter")
    shown = page.get_by_label("The key").inner_text()
    record = house.producer.keys.identify(shown)
    assert record is not None
    assert (record.name, record.scopes) == (name, ("read",))
    page.reload()
    expect(page.locator("h1")).to_have_text("Keys and roles")
    expect(page.get_by_text(name)).to_have_count(1)
    assert shown not in page.content()
    assert [each.name for each in house.producer.keys.list()].count(name) == 1


def test_a_key_is_revoked_and_the_acts_say_who_did_it_and_why(page: Page, house: House) -> None:
    record, key = house.producer.keys.create(f"leaver {uuid4()}", ["read"], who="tests")
    page.goto("/console/keys")
    entry = page.locator(".keylist > li").filter(has_text=record.id)
    entry.get_by_text("Revoke…").click()
    entry.get_by_label("Reason").fill("he left")
    entry.get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("That key is refused from now on.")).to_be_visible()
    assert house.producer.keys.identify(key) is None
    page.goto("/console/acts?act=revoke+key")
    expect(page.locator(".acts > li").first).to_contain_text("he left")
    expect(page.locator(".acts > li").first).to_contain_text("ben (key ")


def test_what_is_being_written_is_not_swapped_away(page: Page, house: House, later: str) -> None:
    page.goto(f"/console/jobs/{later}")
    page.get_by_text("Cancel…").click()
    page.get_by_label("Reason").fill("half a sent")
    house.producer.cancel(later)
    expect(page.get_by_text("This has changed since.")).to_be_visible()
    expect(page.get_by_label("Reason")).to_have_value("half a sent")


def test_a_page_says_when_it_is_not_live_any_more(browser: Browser, api: Api, key: str, later: str) -> None:
    with opened(browser, api.url, key, expected="Failed to load resource|^htmx:") as page:
        page.goto(f"/console/jobs/{later}")
        page.route("**/console/jobs/*", lambda route: route.abort())
        expect(page.get_by_text("Not live just now")).to_be_visible()
        page.unroute_all()
        expect(page.get_by_text("Not live just now")).to_be_hidden()


# Of all text that is seen: how it stands out from what is behind it, as WCAG counts it.
CONTRASTS = """() => {
  const part = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const colour = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = colour(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode()); ) {
    const e = node.parentElement, box = e.getBoundingClientRect();
    if (!node.data.trim() || !box.width || ["SCRIPT", "OPTION", "TITLE"].includes(e.tagName)) continue;
    const [a, b] = [light(colour(getComputedStyle(e).color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    found.push({text: node.data.trim().slice(0, 40), ratio: Math.round(ratio * 100) / 100});
  }
  return found;
}"""
