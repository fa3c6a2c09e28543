"""The OpenAPI document is true, and complete enough: it is fuzzed, and a client that is generated from it works.

`API_EXAMPLES=200` looks further than every run of the tests does; with `--hypothesis-profile=default` as well, it looks
at other examples each time.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from producer.api.app import create_app
from producer.api.settings import ApiSettings
from tests.api_process import Api, api_of
from tests.houses import House

EXAMPLES = int(os.environ.get("API_EXAMPLES", "12"))
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance, status_code_conformance]
# They stream until their job is at rest, which a made-up id never is.
STREAMS = "/v1/jobs/{job_id}/live"

NOBODY = ApiSettings(database_url="postgresql://nobody@nowhere/none", redis_url="redis://nowhere")
DOCUMENT = schemathesis.openapi.from_dict(create_app(NOBODY).openapi()).exclude(path=STREAMS)
OPERATIONS: list[Any] = [found.ok() for found in DOCUMENT.get_all_operations()]  # type: ignore[union-attr]  # or it fails

USES = """
import sys
from client import AuthenticatedClient
from client.api.jobs import enqueue, events, job
from client.models import EnqueueBody, EnqueueBodyParams

body = EnqueueBody(action="test.add", params=EnqueueBodyParams.from_dict({"a": 1, "b": 2}))
with AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2]) as client:
    accepted = enqueue.sync(client=client, body=body, idempotency_key="generated")
    done = job.sync(accepted.job.id, client=client, wait=30.0)
    print(accepted.outcome, done.state, done.result, len(events.sync(done.id, client=client).events))
"""


@pytest.fixture(scope="module")
def api(house: House) -> Iterator[Api]:
    with api_of(house.settings, house.folder) as made:
        yield made


@pytest.fixture(scope="module")
def key(house: House) -> str:
    _, made = house.producer.keys.create("fuzz", ["admin"], who="tests", rate_per_second=100_000)
    return made


def test_every_operation_has_a_name_of_its_own() -> None:
    assert len(OPERATIONS) > 20
    assert len({operation.definition.raw["operationId"] for operation in OPERATIONS}) == len(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.label)
def test_whatever_comes_the_answer_is_one_that_the_document_has(operation: Any, api: Api, key: str) -> None:
    @given(case=operation.as_strategy())
    @settings(max_examples=EXAMPLES, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
    def hold(case: Any) -> None:
        case.call_and_validate(base_url=api.url, headers={"Authorization": f"Bearer {key}"}, checks=CHECKS)

    hold()


def test_nothing_unforeseen_happened_meanwhile(api: Api) -> None:
    assert api.events("api.failed") == []


def test_a_client_that_is_generated_from_the_document_works(api: Api, key: str, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(api.client.get("/openapi.json").text)
    generate = [str(Path(sys.executable).with_name("openapi-python-client")), "generate", "--path", str(document)]
    subprocess.run(
        [*generate, "--meta", "none", "--output-path", str(tmp_path / "client")],
        check=True,
        capture_output=True,
        timeout=120,
    )
    used = subprocess.run(
        [sys.executable, "-c", USES, api.url, key],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert used.stdout == "created succeeded {'total': 3} 4\n", used.stderr
