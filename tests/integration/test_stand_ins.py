"""The demo's stand-ins, asked by the real clients over real sockets."""

from __future__ import annotations

import hashlib
import json
import smtplib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage
from pathlib import Path

import httpx
import openai
import pytest

from worker.dev.standins import Fault, Faults, Kind, Plan, Service, StandIns, stand_ins
from worker.dev.standins.orders import refund_unit
from worker.dev.standins.plan import default_plan
from worker.dev.standins.tickets import read_tickets

TICKETS = {ticket.id: ticket for ticket in read_tickets()}
PATIENCE_SECONDS = 10.0
PATIENCE_WITH = {Kind.TIMEOUT: 0.25}  # seconds; the one fault that has to be waited for
PROMPT_SECONDS = 2.5
REFUND = {"order": "A-2042", "amount": 20.5, "reason": "sent back"}
FRIEND = "haruka.minase@example.net"
HTTP_FAULTS = [
    (Kind.TIMEOUT, openai.APITimeoutError, httpx.ReadTimeout),
    (Kind.RATE_LIMIT, openai.RateLimitError, httpx.HTTPStatusError),
    (Kind.UNAVAILABLE, openai.InternalServerError, httpx.HTTPStatusError),
    (Kind.RESET, openai.APIConnectionError, httpx.ReadError),
    (Kind.LOST_ANSWER, openai.APIConnectionError, httpx.ReadError),
]


@pytest.fixture(scope="module")
def desk() -> Iterator[StandIns]:
    with stand_ins(faults=False) as running:
        yield running


def model(running: StandIns, patience: float = PATIENCE_SECONDS) -> openai.OpenAI:
    return openai.OpenAI(base_url=running.llm_url, api_key="none", max_retries=0, timeout=patience)


def ask(running: StandIns, text: str, system: str = "In JSON!", patience: float = PATIENCE_SECONDS) -> str:
    with model(running, patience) as client:
        answer = client.chat.completions.create(
            model="m", messages=[{"role": "system", "content": system}, {"role": "user", "content": text}]
        )
    return str(answer.choices[0].message.content)


def look_up(running: StandIns, order: str, patience: float = PATIENCE_SECONDS) -> httpx.Response:
    return httpx.get(f"{running.orders_url}/orders/{order}", timeout=patience, trust_env=False)


def refund(running: StandIns, key: str, **change: object) -> httpx.Response:
    headers, url = {"Idempotency-Key": key}, f"{running.orders_url}/refunds"
    return httpx.post(url, json=REFUND | change, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False)


def send(running: StandIns, to: str = FRIEND) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "Desk <desk@example.org>", to, "Größe, 配送 📦"
    mail["Message-ID"] = "<job-1@example.org>"
    mail.set_content("Grüße, 配送 📦\n")
    with smtplib.SMTP(running.smtp_host, running.smtp_port, timeout=PATIENCE_SECONDS) as client:
        client.send_message(mail)


def kinds(plan: Plan, *services: Service) -> set[Kind]:
    return {fault.kind for (service, _), faults in plan.items() for fault in faults if service in services}


def test_every_ticket_parses_and_has_an_id_of_its_own() -> None:
    assert len(TICKETS) == len(read_tickets()) >= 30
    assert all(t.sender.endswith(("@example.com", "@example.org", "@example.net")) for t in TICKETS.values())
    assert all(t.received_at.tzinfo for t in TICKETS.values())


def test_a_line_that_is_no_ticket_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('\n{"id": "T-1"}\n')
    with pytest.raises(ValueError, match=r"t\.jsonl:2 is not a ticket"):
        read_tickets(tmp_path / "t.jsonl")


@pytest.mark.parametrize("seed", range(10))
def test_the_default_plan_follows_from_its_seed_and_has_every_kind_of_fault(seed: int) -> None:
    plan, again, other = (default_plan(read_tickets(), seed=number) for number in (seed, seed, seed + 1))
    assert plan == again
    assert plan.keys() != other.keys()
    assert kinds(plan, *Service) == set(Kind)
    assert kinds(plan, Service.MAIL) == {Kind.SMTP_421, Kind.SMTP_451}  # none of which leaves doubt
    assert len(plan) == round(len(TICKETS) / 3)


def test_a_plan_is_refused_that_asks_a_service_for_a_fault_it_cannot_have() -> None:
    with pytest.raises(ValueError, match="mail cannot meet"):
        Faults({(Service.MAIL, FRIEND): (Fault(Kind.TIMEOUT),)})


def test_the_model_stand_in_says_everywhere_that_it_is_one(desk: StandIns) -> None:
    assert "a stand-in, not a model" in httpx.get(desk.llm_url.removesuffix("v1"), trust_env=False).text
    with model(desk) as client:
        assert [served.id for served in client.models.list()] == ["stand-in-small"]
        raw = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "?"}])
    assert raw.headers["x-surefoot-stand-in"] == "true"
    answer = raw.parse()
    assert (answer.model, answer.system_fingerprint) == ("stand-in-small", "surefoot-stand-in")


@pytest.mark.parametrize(
    ("ticket", "category", "urgency"),
    [
        ("T-1003", "delivery", "high"),
        ("T-1010", "spam", "low"),
        ("T-1011", "refund", "normal"),
        ("T-1012", "damaged", "normal"),
        ("T-1013", "delivery", "normal"),
        ("T-1014", "wrong_item", "normal"),
        ("T-1018", "refund", "normal"),
        ("T-1023", "legal", "high"),
        ("T-1026", "question", "normal"),
    ],
)
def test_a_ticket_is_classified_as_json(desk: StandIns, ticket: str, category: str, urgency: str) -> None:
    answer = json.loads(ask(desk, f"{ticket}\n{TICKETS[ticket].text}"))
    assert answer.pop("reply").endswith(".")
    needs_order = category not in {"spam", "question"}
    assert answer == {"category": category, "urgency": urgency, "needs_order": needs_order}


def test_without_a_word_of_json_the_answer_is_a_sentence(desk: StandIns) -> None:
    answer = ask(desk, "I like JSON. Do you?", system="Answer.")
    assert answer == "Thank you for your question; here is what we can tell you."


def test_a_chat_in_parts_is_answered_with_usage_and_counted(desk: StandIns) -> None:
    before = len(desk.llm.calls)
    with model(desk) as client:
        answer = client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": [{"type": "text", "text": "T-1 Where is my parcel?"}]}],
            response_format={"type": "json_object"},
        )
    assert json.loads(str(answer.choices[0].message.content))["category"] == "delivery"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    [call] = desk.llm.calls[before:]
    assert (call.unit, call.prompt_tokens) == ("T-1", answer.usage.prompt_tokens)
    assert answer.usage.total_tokens == call.prompt_tokens + call.completion_tokens


def test_what_the_model_stand_in_cannot_do_it_refuses(desk: StandIns) -> None:
    with model(desk) as client, pytest.raises(openai.BadRequestError, match="does not stream"):
        client.chat.completions.create(model="m", stream=True, messages=[{"role": "user", "content": "?"}])
    bad = httpx.post(f"{desk.llm_url}/chat/completions", content=b"{", trust_env=False)
    assert (bad.status_code, bad.json()["error"]["type"]) == (400, "invalid_request_error")


@pytest.mark.parametrize(("kind", "error", "_"), HTTP_FAULTS)
def test_a_model_call_meets_its_faults_and_is_then_answered(kind: Kind, error: type[Exception], _: object) -> None:
    unit = hashlib.sha256(b"no ticket id").hexdigest()[:16]
    with stand_ins(faults={(Service.LLM, unit): (Fault(kind), Fault(kind))}) as running:
        for _ in range(2):
            with pytest.raises(error):
                ask(running, "no ticket id", patience=PATIENCE_WITH.get(kind, PATIENCE_SECONDS))
        assert ask(running, "no ticket id")
        injected = [(met.service, met.key, met.kind) for met in running.faults.injected]
    assert injected == [(Service.LLM, unit, kind)] * 2


@pytest.mark.parametrize(("kind", "_", "error"), HTTP_FAULTS)
def test_a_look_up_meets_its_fault_and_is_then_answered(kind: Kind, _: object, error: type[Exception]) -> None:
    with stand_ins(faults={(Service.ORDERS, "A-2041"): (Fault(kind),)}) as running:
        assert look_up(running, "A-2042").is_success
        with pytest.raises(error):
            look_up(running, "A-2041", PATIENCE_WITH.get(kind, PATIENCE_SECONDS)).raise_for_status()
        assert look_up(running, "A-2041").is_success


@pytest.mark.parametrize(("seconds", "told"), [(2, ("retry-after", "2")), (0.35, ("retry-after-ms", "350"))])
def test_a_rate_limit_says_when_to_come_back(seconds: float, told: tuple[str, str]) -> None:
    fault = Fault(Kind.RATE_LIMIT, retry_after_seconds=seconds)
    with stand_ins(faults={(Service.ORDERS, "A-2041"): (fault,)}) as running:
        assert told in look_up(running, "A-2041").headers.items()


def test_an_order_is_found_and_one_that_never_was_is_a_problem(desk: StandIns) -> None:
    order, missing = look_up(desk, "A-2041").json(), look_up(desk, "A-9917")
    assert order.keys() == {"id", "status", "items", "total", "currency", "carrier", "eta"}
    assert order["total"] == pytest.approx(sum(item["quantity"] * item["price"] for item in order["items"]))
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")


def test_a_refund_repeated_with_its_key_is_paid_once() -> None:
    with stand_ins(faults=False) as running:
        first, again, other = refund(running, "k"), refund(running, "k"), refund(running, "k", amount=1)
        assert (first.status_code, again.status_code, other.status_code) == (201, 200, 422)
        assert again.json() == first.json()
        assert again.headers["idempotent-replayed"] == "true"
        assert ([paid.amount for paid in running.orders.refunds], running.orders.replays) == ([20.5], 1)


def test_a_refund_asked_for_by_many_at_once_is_paid_once() -> None:
    with stand_ins(faults=False) as running, ThreadPoolExecutor(16) as crowd:
        answers = list(crowd.map(lambda _: refund(running, "k").status_code, range(32)))
        assert sorted(answers) == [200] * 31 + [201]
        assert len(running.orders.refunds) == 1


def test_a_refund_whose_answer_was_lost_is_not_paid_again() -> None:
    with stand_ins(faults={(Service.ORDERS, refund_unit("A-2042")): (Fault(Kind.LOST_ANSWER),)}) as running:
        with pytest.raises(httpx.ReadError):
            refund(running, "k")
        assert refund(running, "k").headers["idempotent-replayed"] == "true"
        assert len(running.orders.refunds) == 1


def test_a_refund_that_should_not_be_is_refused(desk: StandIns) -> None:
    assert refund(desk, "").status_code == 400
    for change in ({"amount": 10_000}, {"amount": True}, {"amount": -1}, {"order": "A-9917"}, {"reason": None}):
        assert refund(desk, "k", **change).status_code == 422
    assert desk.orders.refunds == []


def test_a_mail_is_kept_as_received_and_counted(tmp_path: Path) -> None:
    with stand_ins(faults=False, mail_log=tmp_path / "mail.jsonl") as running:
        send(running)
        send(running)
        kept = running.mail.messages[0]
        assert (kept.sender, kept.to, kept.body.strip()) == ("Desk <desk@example.org>", FRIEND, "Grüße, 配送 📦")
        assert running.mail.by_message_id == {"<job-1@example.org>": 2}
        assert running.mail.by_recipient_and_subject == {(FRIEND, "Größe, 配送 📦"): 2}
    lines = (tmp_path / "mail.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["subject"] for line in lines] == [kept.subject] * 2


@pytest.mark.parametrize(
    ("kind", "error", "kept"),
    [
        (Kind.SMTP_421, smtplib.SMTPRecipientsRefused, 0),
        (Kind.SMTP_451, smtplib.SMTPDataError, 0),
        (Kind.LOST_ANSWER, smtplib.SMTPServerDisconnected, 1),
    ],
)
def test_a_mail_meets_its_fault_and_then_goes_out(kind: Kind, error: type[Exception], kept: int) -> None:
    with stand_ins(faults={(Service.MAIL, FRIEND): (Fault(kind),)}) as running:
        with pytest.raises(error):
            send(running)
        assert len(running.mail.messages) == kept
        send(running)
        assert len(running.mail.messages) == kept + 1


def works(running: StandIns, service: Service, key: str) -> bool:
    order = key.removeprefix("refund:")
    try:
        if service is Service.LLM:
            ask(running, key, patience=PROMPT_SECONDS)
        elif service is Service.MAIL:
            send(running, to=key)
        elif order == key:
            look_up(running, order, PROMPT_SECONDS).raise_for_status()
        else:
            refund(running, key, order=order, amount=1).raise_for_status()
    except (openai.OpenAIError, httpx.HTTPError, smtplib.SMTPException):
        return False
    return True


def test_every_fault_of_the_default_plan_happens_and_ends() -> None:
    with stand_ins() as running:
        for (service, key), faults in running.faults.plan.items():
            tries = [works(running, service, key) for _ in range(len(faults) + 1)]
            assert tries == [False] * len(faults) + [True], (service, key)
        assert len(running.orders.refunds) == 1


def test_stopping_is_prompt_while_connections_are_held_and_idle() -> None:
    before = set(threading.enumerate())
    plan: Plan = {(Service.ORDERS, "A-2041"): (Fault(Kind.TIMEOUT),) * 3}
    with ThreadPoolExecutor(3) as crowd, httpx.Client(trust_env=False) as idle, smtplib.SMTP() as idle_mail:
        with stand_ins(faults=plan) as running:
            idle.get(running.orders_url)
            idle_mail.connect(running.smtp_host, running.smtp_port)
            held = [crowd.submit(look_up, running, "A-2041") for _ in range(3)]
            until = time.monotonic() + PATIENCE_SECONDS
            while len(running.faults.injected) < len(held):
                assert time.monotonic() < until
            stopped_at = time.monotonic()
        assert time.monotonic() - stopped_at < PROMPT_SECONDS
        assert all(isinstance(answer.exception(PROMPT_SECONDS), httpx.TransportError) for answer in held)
    for thread in set(threading.enumerate()) - before:
        thread.join(PROMPT_SECONDS)
    assert set(threading.enumerate()) <= before
