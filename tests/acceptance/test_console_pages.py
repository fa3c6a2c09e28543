"""What the console shows, and what its pages are made of."""

from __future__ import annotations

import re
from uuid import uuid4

import httpx
import pytest

from tests.acceptance.asking import ADD, enqueue, set_state
from tests.acceptance.browsing import said
from tests.api_process import Api, api_of
from tests.houses import House


def test_what_is_looked_for_is_found_by_whatever_name_it_has(reader: httpx.Client, client: httpx.Client) -> None:
    request, key = f"order/{uuid4()}", str(uuid4())
    job = enqueue(client, ADD | {"request_id": request}, key=key).json()["job"]["id"]
    for name in (job, job.upper(), f" {job} "):
        assert reader.get("/console/find", params={"q": name}).headers["location"] == f"/console/jobs/{job}"
    assert reader.get("/console/find", params={"q": f"test.add {key}"}).headers["location"] == f"/console/jobs/{job}"
    found = reader.get("/console/find", params={"q": request}, follow_redirects=True)
    assert (found.status_code, job in found.text) == (200, True)
    for nothing in ("nobody", "test.add nobody", "\u202e", "a\nb", "x" * 1_000):
        assert reader.get("/console/find", params={"q": nothing}).status_code == 404


def test_the_list_is_filtered_and_paged(reader: httpx.Client, client: httpx.Client) -> None:
    made = [said(client, params={"a": n, "b": 0}) for n in range(3)]
    shown = reader.get("/console/jobs", params={"state": "succeeded", "action": "test.add"}).text
    assert [job for job in re.findall(r'href="/console/jobs/([0-9a-f-]{36})"', shown) if job in made] == made[::-1]
    before = reader.get("/console/jobs", params={"action": "test.add", "cursor": made[1]}).text
    assert made[0] in before
    assert made[1] not in re.findall(r'href="/console/jobs/([0-9a-f-]{36})"', before)
    assert reader.get("/console/jobs", params={"cursor": "nonsense"}).status_code == 400
    assert reader.get("/console/jobs", params={"state": "lost"}).status_code == 200


def test_secrets_are_not_shown(reader: httpx.Client, client: httpx.Client) -> None:
    value = {"password": "hunter22", "note": "sk_live_" + "a1B2" * 6}
    asked = {"action": "test.echo", "params": {"value": value}, "reasoning": "token: sk_live_" + "a1B2" * 6}
    job = enqueue(client, asked, wait=30).json()["job"]
    for page in (f"/console/jobs/{job['id']}", f"/console/chain?request={job['request_id']}"):
        shown = reader.get(page).text
        assert "[redacted]" in shown
        assert "hunter22" not in shown
        assert "a1B2" not in shown


HOSTILE = {
    "markup": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "attribute": "\" autofocus onfocus=alert(1) x='",
    "template": "{{ 7 * 7 }}{% raw %}",
    "turned": "gnp.\u202egpj",
    "controls": "a\x1b[2J\x07b",
    "unseen": "a\u200b\u2066b\ufeff",
    "breaks": "a\u2028b\u2029c",
}


@pytest.mark.parametrize("words", HOSTILE.values(), ids=HOSTILE)
def test_hostile_words_are_shown_as_what_they_are(reader: httpx.Client, client: httpx.Client, words: str) -> None:
    request = str(uuid4())
    body = {"action": "test.echo", "params": {"value": {words: words}}, "reasoning": words, "input": words}
    body |= {"request_id": request}
    job = enqueue(client, body, wait=30).json()["job"]["id"]
    for page in (f"/console/jobs/{job}", f"/console/chain?request={request}", "/console/jobs", "/console"):
        shown = reader.get(page).text
        assert "<script>alert" not in shown
        assert "<img" not in shown
        assert "onfocus=alert(1) x='\"" not in shown
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u2028\u2029\u202e\u2066\ufeff]", shown)


def test_reasoning_without_end_is_shown_in_part_in_a_chain_and_whole_on_its_job(
    reader: httpx.Client, client: httpx.Client
) -> None:
    request = str(uuid4())
    job = said(client, reasoning="why " * 16_000 + "the end", request_id=request)
    chain = reader.get("/console/chain", params={"request": request}).text
    assert len(chain) < 20_000
    assert "the end" in reader.get(f"/console/jobs/{job}").text


def test_a_page_is_its_own_and_runs_nothing_of_anybody_s(reader: httpx.Client, client: httpx.Client) -> None:
    job = said(client)
    for path in ("/console", "/console/jobs", f"/console/jobs/{job}", "/console/schedules", "/console/nowhere"):
        shown = reader.get(path)
        policy = shown.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert shown.headers["x-content-type-options"] == "nosniff"
        assert "style=" not in shown.text
        assert not re.search(r"<script(?![^>]+src=)|\son[a-z]+=", shown.text)
        assert not re.search(r'(src|href)="(https?:)?//', shown.text)


def test_a_first_look_costs_less_than_100_kb(reader: httpx.Client, client: httpx.Client) -> None:
    job = said(client)
    page = reader.get(f"/console/jobs/{job}")
    assets = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', page.text)
    assert len(assets) == 4
    loaded = [reader.get(address, headers={"Accept-Encoding": "identity"}) for address in assets]
    assert {each.status_code for each in loaded} == {200}
    assert all("immutable" in each.headers["cache-control"] for each in loaded)
    assert len(page.content) + sum(len(each.content) for each in loaded) < 100_000  # without any compression, too


def test_what_has_not_changed_is_not_sent_again(reader: httpx.Client, house: House, later: str) -> None:
    path = f"/console/jobs/{later}"
    seen = re.search(r"X-Seen&#34;: &#34;(\w+)|\"X-Seen\": \"(\w+)\"", reader.get(path).text)
    assert seen is not None
    look = {"HX-Request": "true", "X-Seen": seen[1] or seen[2]}
    assert reader.get(path, headers=look).status_code == 204
    house.producer.cancel(later)
    changed = reader.get(path, headers=look)
    assert changed.status_code == 200
    assert "cancelled" in changed.text
    assert "<html" not in changed.text
    assert "hx-trigger" not in changed.text  # it is at rest: there is nothing to wait for


def test_a_job_shows_where_it_stands_in_its_request(reader: httpx.Client, client: httpx.Client) -> None:
    request = str(uuid4())
    made = [said(client, request_id=request, params={"a": n, "b": 0}) for n in range(12)]
    shown = reader.get(f"/console/jobs/{made[6]}").text
    around = shown[shown.index('class="around"') :]
    assert [made.index(job) + 1 for job in re.findall(r'href="/console/jobs/([0-9a-f-]{36})"', around)] == list(
        range(3, 12)
    )


@pytest.mark.parametrize(
    ("path", "marked"),
    [
        ("", 'href="/console" aria-current="page"'),
        ("/jobs?state=dead", 'href="/console/jobs" aria-current="page"'),
        ("/jobs/{job}", 'href="/console/jobs" aria-current="true"'),
        ("/action?name=test.add", 'href="/console/actions" aria-current="true"'),
        ("/actions/policies", 'href="/console/actions" aria-current="true"'),
        ("/acts", 'href="/console/acts" aria-current="page"'),
    ],
)
def test_a_page_says_where_it_is(reader: httpx.Client, client: httpx.Client, path: str, marked: str) -> None:
    shown = reader.get("/console" + path.format(job=said(client))).text
    top = shown[shown.index("<nav") : shown.index("</nav>")]
    assert top.count("aria-current") == 1
    assert marked in top


def test_what_is_not_there_is_a_page(reader: httpx.Client) -> None:
    for path in (f"/console/jobs/{uuid4()}", "/console/nowhere", "/console/chain?request=none"):
        shown = reader.get(path)
        assert shown.status_code == 404
        assert "text/html" in shown.headers["content-type"]
    assert reader.get("/console/jobs/nonsense").status_code == 400
    assert reader.get("/console/chain").status_code == 400


def test_whoever_opens_the_api_in_a_browser_is_shown_the_console(api: Api) -> None:
    assert api.client.get("/").headers["location"] == "/console"


def test_the_console_can_be_left_out(house: House) -> None:
    with api_of(house.settings, house.folder, {"SUREFOOT_CONSOLE": "no"}) as without:
        assert without.client.get("/console").status_code == 404
        assert without.client.get("/livez").status_code == 200


def test_without_keys_the_console_answers_to_this_machine_s_name_alone(house: House) -> None:
    with api_of(house.settings, house.folder, {"SUREFOOT_API_KEYS": "none-on-loopback"}) as open_one:
        assert open_one.client.get("/console").status_code == 200
        assert open_one.client.get("/console", headers={"Host": "rebound.example"}).status_code == 403


def test_the_overview_counts_what_somebody_should_look_at(reader: httpx.Client, house: House, later: str) -> None:
    set_state(house, later, "in_doubt", doubt=True)
    shown = reader.get("/console").text
    assert later in shown
    assert "in doubt" in shown
