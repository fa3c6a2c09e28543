"""One trace from a service's own span through the job's attempts to what its action calls, as a collector gets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from producer import Settings
from tests.api_process import api_of, bearer
from tests.houses import ROOT, House, house_of, until, worker_environment
from tests.http_stand_in import Answering, served

CONSUMER, CLIENT, PRODUCER, ERROR = 5, 3, 4, 2

# What a service of one's own does: it has set OpenTelemetry up, and asks for a job within a span.
SERVICE = """
import sys
from opentelemetry import trace
from producer import Producer
from producer.spans import export

export("shop", "otlp")
with trace.get_tracer("shop").start_as_current_span("checkout"):
    job = Producer().enqueue("http.request", {"method": "POST", "url": sys.argv[1]},
                             idempotency_key=sys.argv[2], request_id="order-7")
print(job.id)
"""


class Collector(Answering):
    """Keeps every span that it is sent."""

    spans: ClassVar[list[tuple[str, Any]]] = []
    lock: ClassVar[threading.Lock] = threading.Lock()

    def post(self) -> None:
        """Take spans."""
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        with self.lock:
            for of_resource in request.resource_spans:
                (service,) = (a.value.string_value for a in of_resource.resource.attributes if a.key == "service.name")
                self.spans.extend((service, span) for scope in of_resource.scope_spans for span in scope.spans)
        self.say(200, "application/x-protobuf", b"")


class Called(Answering):
    """What the action calls; keeps the headers."""

    headers_seen: ClassVar[list[dict[str, str]]] = []

    def post(self) -> None:
        """Take note."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.headers_seen.append({name.lower(): value for name, value in self.headers.items()})
        self.answer({"ok": True})


@pytest.fixture(scope="module")
def collector() -> Iterator[str]:
    with served(Collector) as url:
        yield url


@pytest.fixture(scope="module")
def exporting(collector: str) -> dict[str, str]:
    return {
        "SUREFOOT_TRACES": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }


@pytest.fixture(scope="module")
def house(
    module_settings: Settings, exporting: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    with house_of(module_settings, tmp_path_factory.mktemp("house"), environment=exporting) as made:
        yield made


def trace_with(name: str, request_id: str) -> dict[str, Any]:
    """The spans of the trace that a request's attempt belongs to, by name; waited for."""

    def found() -> dict[str, Any]:
        spans = list(Collector.spans)
        traces = {s.trace_id for _, s in spans if attributes(s).get("surefoot.request_id") == request_id}
        by_name = {span.name: (service, span) for service, span in spans if span.trace_id in traces}
        return by_name if name in by_name else {}

    return until(found)


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


def ask_as_a_service(house: House, exporting: dict[str, str], url: str) -> str:
    environment = worker_environment(house.settings) | exporting
    command = [sys.executable, "-c", SERVICE, url, str(uuid4())]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


def test_a_service_s_span_the_job_s_the_attempt_s_and_the_call_s_are_one_trace(
    house: House, exporting: dict[str, str]
) -> None:
    with served(Called) as url:
        job = house.producer.job(ask_as_a_service(house, exporting, f"{url}/pay"))
        assert job.wait(20).state == "succeeded", job.record.error
    spans = trace_with("POST", "order-7")
    chain = [spans[name] for name in ("checkout", "enqueue http.request", "http.request", "POST")]
    assert [service for service, _ in chain] == ["shop", "shop", "surefoot-worker", "surefoot-worker"]
    for (_, parent), (_, child) in pairwise(chain):
        assert child.parent_span_id == parent.span_id
    kinds = [span.kind for _, span in chain[1:]]
    assert kinds == [PRODUCER, CONSUMER, CLIENT]
    attempt, call = chain[2][1], chain[3][1]
    assert attributes(attempt)["surefoot.job_id"] == str(job.id)
    assert attributes(attempt)["surefoot.state"] == "succeeded"
    # The other side is told the call's own span, and the ledger knows the job's.
    (headers,) = Called.headers_seen
    assert headers["traceparent"].split("-")[1:3] == [call.trace_id.hex(), call.span_id.hex()]
    assert job.record.traceparent.split("-")[1:3] == [call.trace_id.hex(), chain[1][1].span_id.hex()]


def test_each_attempt_is_a_span_of_the_job_and_one_that_went_wrong_is_shown_as_such_without_its_words(
    house: House,
) -> None:
    house.producer.enqueue("test.fail", {"times": 1}, idempotency_key="twice", request_id="twice").get(20)
    until(lambda: len([s for _, s in Collector.spans if attributes(s).get("surefoot.request_id") == "twice"]) == 2)
    spans = [span for _, span in Collector.spans if attributes(span).get("surefoot.request_id") == "twice"]
    assert len({span.parent_span_id for span in spans}) == 1
    assert [attributes(span)["surefoot.state"] for span in spans] == ["waiting", "succeeded"]
    house.producer.enqueue("test.raise", {"kind": "secret"}, idempotency_key="bad", request_id="bad").wait(20)
    _, span = trace_with("test.raise", "bad")["test.raise"]
    assert span.status.code == ERROR
    assert attributes(span)["error.type"] == "ValueError"
    assert "hunter2secret" not in str(span)


def test_a_follow_up_s_spans_belong_to_the_attempt_that_asked_for_it(house: House) -> None:
    asked = {"action": "test.add", "params": {"a": 1, "b": 1}}
    plan = house.producer.enqueue(
        "follow.plan_sync", {"requests": [asked]}, idempotency_key="plan", request_id="plan-trace"
    )
    assert plan.get(20) == 1
    spans = trace_with("test.add", "plan-trace")
    chain = [spans[name][1] for name in ("follow.plan_sync", "enqueue test.add", "test.add")]
    assert all(child.parent_span_id == parent.span_id for parent, child in pairwise(chain))


def test_a_request_over_http_joins_its_caller_s_trace(house: House, exporting: dict[str, str], tmp_path: Path) -> None:
    _, key = house.producer.keys.create("traces", ["enqueue"], who="tests")
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with api_of(house.settings, tmp_path, exporting) as api:
        headers = bearer(key) | {"Idempotency-Key": "over-http", "traceparent": caller}
        body = {"action": "test.add", "params": {"a": 1, "b": 1}, "request_id": "over-http"}
        answer = api.client.post("/v1/jobs", json=body, headers=headers)
        assert answer.status_code == 202, answer.text
        spans = trace_with("test.add", "over-http")
    assert {span.trace_id.hex() for _, span in spans.values()} == {caller.split("-")[1]}
    assert spans["test.add"][1].parent_span_id.hex() == answer.headers["traceparent"].split("-")[2]


def test_nothing_of_opentelemetry_is_loaded_where_nobody_exports(settings: Settings) -> None:
    loaded = "[name for name in sys.modules if 'telemetry' in name]"
    script = f"import json, sys, producer; producer.Producer(); print(json.dumps({loaded}))"
    environment = os.environ | {
        "SUREFOOT_DATABASE_URL": settings.database_url,
        "SUREFOOT_REDIS_URL": settings.redis_url,
    }
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
