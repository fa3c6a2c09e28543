"""The actions that come with Surefoot, against real servers that fail on purpose."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from producer import Producer, Settings, State
from producer.job import Job
from producer.trace import trace_id_of
from tests.houses import start_worker, until
from worker.dev.stage import PROJECT
from worker.dev.standins import MODEL, Fault, Kind, Service, StandIns, refund_unit, stand_ins

SECONDS = 30.0
PRICES = PROJECT / "worker" / "dev" / "stand_in_prices.json"

FAULTS = {
    (Service.LLM, "T-1"): (Fault(Kind.UNAVAILABLE), Fault(Kind.RESET)),
    (Service.LLM, "T-2"): (
        Fault(Kind.RATE_LIMIT, retry_after_seconds=0.3),
        Fault(Kind.RATE_LIMIT, retry_after_seconds=0.3),
    ),
    (Service.LLM, "T-3"): (Fault(Kind.TIMEOUT),),
    (Service.ORDERS, "A-2041"): (Fault(Kind.UNAVAILABLE), Fault(Kind.TIMEOUT)),
    (Service.ORDERS, refund_unit("A-2042")): (Fault(Kind.LOST_ANSWER),),
    (Service.ORDERS, refund_unit("A-2043")): (Fault(Kind.UNAVAILABLE),),
    (Service.ORDERS, refund_unit("A-2044")): (Fault(Kind.LOST_ANSWER),),
    (Service.MAIL, "put-off@example.com"): (Fault(Kind.SMTP_451), Fault(Kind.SMTP_421)),
    (Service.MAIL, "lost@example.com"): (Fault(Kind.LOST_ANSWER),),
}


@dataclass(frozen=True, slots=True)
class Town:
    """A worker with its actions' services."""

    producer: Producer
    services: StandIns

    def do(self, action: str, params: dict[str, Any], key: str) -> Job:
        return self.producer.enqueue(action, params, idempotency_key=key)


@pytest.fixture(scope="module")
def town(module_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with stand_ins(faults=FAULTS) as services:
        environment = {
            "OPENAI_BASE_URL": services.llm_url,
            "OPENAI_API_KEY": "sk-test-canary-0123456789abcdef",
            "SUREFOOT_PRICES_FILE": str(PRICES),
            "SUREFOOT_SMTP_URL": f"smtp://{services.smtp_host}:{services.smtp_port}",
            "SUREFOOT_HTTP_HOSTS": "127.0.0.1,localhost",
            "NO_PROXY": "127.0.0.1",
        }
        worker = start_worker(module_settings, tmp_path_factory.mktemp("town") / "worker.log", environment=environment)
        producer = Producer(module_settings)
        yield Town(producer, services)
        producer.close()
        worker.stop()


def chat(ticket: str, **more: Any) -> dict[str, Any]:
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": f"{ticket}: where is my parcel?"}],
        "timeout": 1,
        **more,
    }


def refund(town: Town, order: str, **more: Any) -> dict[str, Any]:
    body = {"order": order, "amount": 1.5, "reason": "late"}
    return {"method": "POST", "url": f"{town.services.orders_url}/refunds", "json": body, "timeout": 1, **more}


def mail(to: str | list[str], **more: Any) -> dict[str, Any]:
    return {"to": to, "subject": "Hello", "body": "Good day", "sender": "desk@example.com", **more}


# ---- llm.chat --------------------------------------------------------------------------------------------------


def test_a_chat_records_its_tokens_and_its_cost(town: Town) -> None:
    job = town.do("llm.chat", chat("T-10", answer="json"), "cost")
    answer = job.get(SECONDS)
    assert answer["json"]["category"] == "delivery"
    record = job.record
    assert (record.tokens_in, record.tokens_out) == (answer["tokens_in"], answer["tokens_out"])
    tokens_in, tokens_out = answer["tokens_in"], answer["tokens_out"]
    assert record.cost_usd == (Decimal("0.15") * tokens_in + Decimal("0.60") * tokens_out) / 1_000_000


def test_a_model_that_fails_and_hangs_up_is_asked_again(town: Town) -> None:
    job = town.do("llm.chat", chat("T-1"), "fails")
    job.get(SECONDS)
    assert job.record.attempt == 3


def test_a_model_that_does_not_answer_in_time_is_asked_again(town: Town) -> None:
    job = town.do("llm.chat", chat("T-3"), "hangs")
    job.get(SECONDS)
    failed = next(event for event in job.events if event.kind == "attempt_failed")
    assert "did not answer in time" in str(failed.data)


def test_a_rate_limit_holds_and_spends_no_attempt(town: Town) -> None:
    job = town.do("llm.chat", chat("T-2"), "limited")
    job.get(SECONDS)
    assert job.record.attempt == 1
    held = [event for event in job.events if event.kind == "held" and (event.data or {}).get("why") == "held"]
    assert len(held) == 2
    assert all(event.data is not None and event.data["delay"] >= 0.3 for event in held)


# ---- http.request ----------------------------------------------------------------------------------------------


def test_a_get_is_pure_and_survives_what_the_network_does(town: Town) -> None:
    url = f"{town.services.orders_url}/orders/A-2041"
    job = town.do("http.request", {"method": "GET", "url": url, "timeout": 1}, "get")
    answer = job.get(SECONDS)
    assert (answer["status"], answer["json"]["id"]) == (200, "A-2041")
    assert (job.record.attempt, job.record.effect) == (3, "pure")


def test_a_404_is_a_refusal_and_not_tried_again(town: Town) -> None:
    url = f"{town.services.orders_url}/orders/A-9999"
    job = town.do("http.request", {"method": "GET", "url": url}, "missing").wait(SECONDS)
    assert (job.state, job.record.attempt) == (State.FAILED, 1)
    assert job.error is not None
    assert "404" in job.error["message"]


def test_a_post_whose_answer_was_lost_is_repeated_with_its_key_and_paid_once(town: Town) -> None:
    job = town.do("http.request", refund(town, "A-2042", key_header="Idempotency-Key"), "lost-keyed")
    answer = job.get(SECONDS)
    assert answer["headers"]["idempotent-replayed"] == "true"
    assert (job.record.effect, job.record.attempt) == ("keyed", 2)
    paid = [r for r in town.services.orders.refunds if r.order == "A-2042"]
    assert [r.idempotency_key for r in paid] == [f"{job.id}:0"]


def test_a_post_without_a_key_whose_answer_is_lost_is_in_doubt_and_not_repeated(town: Town) -> None:
    # The header is set by hand, so the service pays; but to Surefoot it is a POST that must not be repeated.
    job = town.do("http.request", refund(town, "A-2044", headers={"Idempotency-Key": "by-hand"}), "lost-unsafe")
    until(lambda: job.refresh().state is State.IN_DOUBT)
    assert (job.record.effect, job.record.attempt) == ("unsafe", 1)
    assert len([r for r in town.services.orders.refunds if r.order == "A-2044"]) == 1


def test_a_post_without_a_key_that_gets_a_503_is_in_doubt(town: Town) -> None:
    job = town.do("http.request", refund(town, "A-2043", headers={"Idempotency-Key": "by-hand-2"}), "503-unsafe")
    until(lambda: job.refresh().state is State.IN_DOUBT)
    assert job.record.attempt == 1


def test_a_post_that_nobody_listens_for_is_tried_again_for_nothing_can_have_happened(town: Town) -> None:
    params = {"method": "POST", "url": "http://127.0.0.1:1/", "json": {}, "timeout": 1}
    job = town.do("http.request", params, "nobody")
    until(lambda: [event for event in job.events if event.kind == "attempt_failed"])
    assert job.refresh().state is not State.IN_DOUBT


@pytest.mark.parametrize(
    "url",
    [
        "not a url",
        "ftp://127.0.0.1/x",
        "http://",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1\n:9/",
        "http://0177.0.0.1/",
        "http://☃.example/",
    ],
)
def test_a_request_that_cannot_be_sent_has_failed_and_is_not_in_doubt(town: Town, url: str) -> None:
    job = town.do("http.request", {"method": "POST", "url": url}, f"bad-{hash(url)}").wait(SECONDS)
    assert job.state is State.FAILED


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"host": "127.0.0.2"}, "'127.0.0.2' is none of the hosts that may be called, which SUREFOOT_HTTP_HOSTS names"),
        ({"headers": {"hOst": "internal"}}, "host may have another answer than the one that SUREFOOT_HTTP_HOSTS names"),
        ({"key_header": "Host"}, "host may have another answer than the one that SUREFOOT_HTTP_HOSTS names"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "transfer-encoding may have another answer than the one that"),
    ],
    ids=["another host", "a header", "as the key's header", "where a request ends"],
)
def test_whom_a_worker_may_not_call_it_does_not_and_the_job_has_failed_for_certain(
    town: Town, echo: str, params: dict[str, Any], why: str
) -> None:
    host = params.pop("host", "127.0.0.1")
    asked = {"method": "POST", "url": echo.replace("127.0.0.1", host), **params}
    job = town.do("http.request", asked, f"forbidden-{uuid4()}").wait(SECONDS)
    assert (job.state, job.record.attempt) == (State.FAILED, 1)
    assert job.error is not None
    assert why in job.error["message"]


def test_a_worker_whose_list_of_hosts_is_none_calls_nobody_and_leaves_no_job_in_doubt(
    settings: Settings, lone_producer: Producer, tmp_path: Path, echo: str
) -> None:
    worker = start_worker(settings, tmp_path / "worker.log", environment={"SUREFOOT_HTTP_HOSTS": "127.0.0.1:80"})
    try:
        job = lone_producer.enqueue("http.request", {"method": "POST", "url": echo})
        until(lambda: job.refresh().record.waiting_for == "retry")
        assert job.error is not None
        assert "SUREFOOT_HTTP_HOSTS: '127.0.0.1:80' is not a host" in job.error["message"]
        assert job.cancel() == "cancelled"  # and not in doubt, as where something may have happened
    finally:
        worker.stop()


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        bodies = {"/long": b"x" * 600_000, "/control": b"\x01" * 160_000}
        body = bodies.get(self.path) or json.dumps(dict(self.headers.items())).encode()
        self.send_response({"/503": 503, "/429": 429}.get(self.path, 200))
        if self.path == "/429":
            self.send_header("Retry-After", "60")
        if self.path == "/cookie":
            self.send_header("Set-Cookie", "session=canary; Path=/")
        self.send_header("Content-Type", "text/plain" if self.path in bodies else "application/json")
        if self.path == "/503":
            self.send_header("x-should-retry", "false")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as server:
        server.block_on_close = False  # the worker keeps its connection alive
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_an_http_request_carries_the_trace_on(town: Town, echo: str) -> None:
    job = town.do("http.request", {"method": "GET", "url": echo, "headers": {"X-Mine": "1"}}, "traced")
    headers = {name.lower(): value for name, value in job.get(SECONDS)["json"].items()}
    assert trace_id_of(headers["traceparent"]) == trace_id_of(job.record.traceparent)
    assert headers["traceparent"] != job.record.traceparent
    assert headers["x-mine"] == "1"


def test_an_answer_that_is_too_long_is_cut_off_and_known_all_the_same(town: Town, echo: str) -> None:
    answer = town.do("http.request", {"method": "GET", "url": f"{echo}/long"}, "long").get(SECONDS)
    assert (answer["status"], answer["json"], answer["truncated"]) == (200, None, True)
    assert len(answer["text"]) == 160 * 1024


def test_an_answer_of_nothing_but_control_characters_fits_into_the_ledger(town: Town, echo: str) -> None:
    answer = town.do("http.request", {"method": "GET", "url": f"{echo}/control"}, "control").get(SECONDS)
    assert set(answer["text"]) == {"\x01"}


def test_a_503_that_forbids_another_try_leaves_a_post_in_doubt(town: Town, echo: str) -> None:
    job = town.do("http.request", {"method": "POST", "url": f"{echo}/503", "timeout": 5}, "forbidden")
    until(lambda: job.refresh().state is State.IN_DOUBT)
    get = town.do("http.request", {"method": "GET", "url": f"{echo}/503", "timeout": 5}, "forbidden-get")
    assert get.wait(SECONDS).state is State.FAILED
    assert get.record.attempt == 1


# ---- email.send ------------------------------------------------------------------------------------------------


def test_a_mail_arrives_once_under_an_id_of_its_job(town: Town) -> None:
    job = town.do("email.send", mail("plain@example.com", html="<p>Good day</p>"), "mail")
    sent = job.get(SECONDS)
    assert sent == {"message_id": f"<{job.id}.0@surefoot>", "accepted": ["plain@example.com"], "refused": {}}
    assert town.services.mail.by_message_id[sent["message_id"]] == 1


def test_a_mail_server_that_puts_us_off_is_asked_again_and_takes_the_mail_once(town: Town) -> None:
    job = town.do("email.send", mail("put-off@example.com"), "put-off")
    sent = job.get(SECONDS)
    assert job.record.attempt == 3
    assert town.services.mail.by_message_id[sent["message_id"]] == 1


def test_a_mail_server_that_vanishes_after_the_message_puts_the_job_in_doubt(town: Town) -> None:
    job = town.do("email.send", mail("lost@example.com"), "lost")
    until(lambda: job.refresh().state is State.IN_DOUBT)
    assert job.record.attempt == 1
    assert town.services.mail.by_message_id[f"<{job.id}.0@surefoot>"] == 1


def test_a_header_with_a_line_break_is_refused_before_anything_is_sent(town: Town) -> None:
    job = town.do("email.send", mail("plain@example.com", reply_to="x@example.com\r\nBcc: all@example.com"), "broken")
    assert job.wait(SECONDS).state is State.FAILED
    assert job.error is not None
    assert "cannot be written" in job.error["message"]


def test_a_recipient_that_the_server_refuses_for_good_fails_the_job(town: Town) -> None:
    assert town.do("email.send", mail("not an address"), "nobody").wait(SECONDS).state is State.FAILED


def test_the_key_of_the_model_is_in_no_log_and_no_record(town: Town, tmp_path_factory: pytest.TempPathFactory) -> None:
    canary = "sk-test-canary"
    logs = [p.read_text(errors="replace") for p in Path(tmp_path_factory.getbasetemp()).glob("town*/worker.log")]
    records = [repr(job.record) for job in town.producer.jobs(limit=1000)]
    assert logs
    assert not [text for text in [*logs, *records] if canary in text]


# ---- what a reviewer found -------------------------------------------------------------------------------------


def test_one_host_that_asks_for_patience_holds_nobody_else(town: Town, echo: str) -> None:
    job = town.do(
        "http.request",
        {"method": "GET", "url": f"{echo}/429".replace("127.0.0.1", "localhost"), "timeout": 5},
        "patience",
    )
    until(lambda: job.refresh().state is State.WAITING)
    other = town.do("http.request", {"method": "GET", "url": f"{town.services.orders_url}/orders/A-2045"}, "other-host")
    assert job.cancel() == "cancelled"
    assert other.wait(SECONDS).state is State.SUCCEEDED


def test_cookies_of_one_job_are_not_sent_with_anothers(town: Town, echo: str) -> None:
    town.do("http.request", {"method": "GET", "url": f"{echo}/cookie"}, "cookie-1").get(SECONDS)
    sent = town.do("http.request", {"method": "GET", "url": f"{echo}/"}, "cookie-2").get(SECONDS)
    assert "canary" not in str(sent["json"])


class _Rude(socketserver.StreamRequestHandler):
    """An SMTP server that takes the message and then forgets its manners."""

    def handle(self) -> None:
        self.wfile.write(b"220 rude\r\n")
        for line in self.rfile:
            verb = line[:4].upper()
            if verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while self.rfile.readline() != b".\r\n":
                    pass
                self.server.taken += 1  # type: ignore[attr-defined]
                self.wfile.write(b"250 taken\r\n")
            elif verb == b"QUIT":
                self.wfile.write(b"421 too busy to say goodbye\r\n")
                return
            else:
                self.wfile.write(b"250 fine\r\n")


def test_a_mail_server_that_does_not_say_goodbye_has_taken_the_mail_once() -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Rude) as server:
        server.taken = 0  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        host, port = server.server_address[:2]
        code = (
            "import time, uuid, structlog\n"
            "from tasks import Context\n"
            "from tasks.email import send\n"
            "ctx = Context(job_id=uuid.uuid4(), action='email.send', tenant='t', attempt=1, request_id='r',"
            " user_id=None, agent_id=None, traceparent='00-' + '1' * 32 + '-' + '1' * 16 + '-01',"
            " deadline=time.monotonic() + 20, log=structlog.get_logger())\n"
            "print(send('a@example.com', 's', 'b', 'c@example.com', ctx)['accepted'])\n"
        )
        environment = os.environ | {"SUREFOOT_SMTP_URL": f"smtp://{host!s}:{port}"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        server.shutdown()
        assert done.stdout.strip() == "['a@example.com']", done.stderr
        assert server.taken == 1  # type: ignore[attr-defined]
