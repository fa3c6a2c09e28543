"""Sealing by real workers: what they did is sealed within seconds, exported, and verified by the command line."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from producer import Producer, Settings
from producer.anchoring import read_anchors
from tests.acceptance.test_cli import json_lines, run, surefoot
from tests.houses import House, house_of, start_worker, until
from tests.integration.sealing import superuser

KEY = "a key of thirty-two characters, or"


@pytest.fixture
def kept(settings: Settings, tmp_path: Path) -> Iterator[House]:
    """A house whose seals are signed and go to a file."""
    environment = {
        "SUREFOOT_SIGNING_KEY": KEY,
        "SUREFOOT_ANCHOR_TO": str(tmp_path / "anchors"),
        "SUREFOOT_ANCHOR_SECONDS": "0.1",
    }
    with house_of(settings, tmp_path, environment=environment) as house:
        yield house


def work(producer: Producer, tag: str = "") -> list[str]:
    """Have some jobs done, of every kind of end; return their ids."""
    asked: list[tuple[str, dict[str, Any]]] = [
        ("test.add", {"a": 1, "b": 2}),
        ("test.fail", {"times": 2}),
        ("test.raise", {"kind": "refused"}),
        ("test.unsafe_unknown", {}),
        ("fallback.value", {}),
        ("follow.plan", {"requests": [{"action": "test.add", "params": {"a": 3, "b": 4}}]}),
    ]
    jobs = [producer.enqueue(action, params, idempotency_key=f"{tag}{n}") for n, (action, params) in enumerate(asked)]
    for job in jobs:
        job.wait(30)
    return [str(job.id) for job in jobs]


def all_sealed(producer: Producer) -> bool:
    return producer.verify().unsealed == 0


def test_what_workers_did_is_sealed_within_seconds_and_sound(kept: House, engine: Engine) -> None:
    work(kept.producer)
    until(lambda: all_sealed(kept.producer))
    found = kept.producer.verify()
    assert found.is_sound
    with engine.connect() as connection:
        counted = connection.execute(text("SELECT count(*) FROM events")).scalar_one()
    assert found.events >= counted  # a job that was under way when it was sealed is sealed again
    assert found.seals


ATTACKS = {
    "a result": "UPDATE decisions SET result = '{\"total\": 4}' WHERE job_id = :id",
    "no result": "UPDATE decisions SET result = NULL WHERE job_id = :id",
    "an event": "UPDATE events SET worker = 'nobody' WHERE job_id = :id AND seq = 2",
    "the end": "DELETE FROM events WHERE job_id = :id AND seq = 4",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_command_line_says_what_was_changed_and_ends_with_1(kept: House, engine: Engine, attack: str) -> None:
    job_id, *_ = work(kept.producer)
    until(lambda: all_sealed(kept.producer))
    anchors = str(kept.folder / "anchors")
    until(lambda: Path(anchors).exists())
    sound = run(kept.settings, "surefoot", "audit", "verify", "--anchors", anchors, SUREFOOT_SIGNING_KEY=KEY)
    assert (sound.returncode, sound.stdout.splitlines()[-1]) == (0, "Sound.")
    with superuser(engine) as connection:
        connection.execute(text(ATTACKS[attack]), {"id": job_id})
    for as_json in ([], ["--json"]):
        done = run(
            kept.settings, "surefoot", "audit", "verify", "--anchors", anchors, *as_json, SUREFOOT_SIGNING_KEY=KEY
        )
        assert done.returncode == 1
        assert f"job {job_id}" in done.stdout
    (facts,) = json_lines(done)
    (finding,) = facts["findings"]
    assert finding["job_id"] == job_id


def test_another_key_is_told_from_the_one_that_signed(kept: House) -> None:
    work(kept.producer)
    until(lambda: all_sealed(kept.producer))
    done = run(kept.settings, "surefoot", "audit", "verify", SUREFOOT_SIGNING_KEY="x" * 32)
    assert done.returncode == 1
    assert "is not signed by the key that is known here" in done.stdout


def test_anchors_are_posted_to_a_url_and_one_that_is_away_costs_no_seal(settings: Settings, tmp_path: Path) -> None:
    posted: list[dict[str, Any]] = []

    class Keeper(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(500 if len(posted) == 1 else 204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keeper)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment = {
        "SUREFOOT_ANCHOR_TO": f"http://127.0.0.1:{server.server_port}/anchors",
        "SUREFOOT_ANCHOR_SECONDS": "0.1",
    }
    try:
        with house_of(settings, tmp_path, environment=environment) as house:
            work(house.producer, "one")
            until(lambda: posted)
            until(lambda: house.worker.events("seal.not_anchored"))
            work(house.producer, "two")
            until(lambda: len(posted) > 1)
            assert house.producer.verify(anchors=posted).is_sound
            assert house.producer.verify(anchors=posted).anchors == len(posted)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_several_workers_seal_one_chain_and_go_on_where_one_was_killed(
    settings: Settings, tmp_path: Path, lone_producer: Producer
) -> None:
    workers = [start_worker(settings, tmp_path / f"{name}.log") for name in ("one", "two")]
    try:
        work(lone_producer, "both")
        workers[0].kill()
        work(lone_producer, "one")
        until(lambda: all_sealed(lone_producer))
        assert lone_producer.verify().is_sound
    finally:
        for worker in workers:
            worker.stop()


def test_what_people_did_is_listed_with_its_ways_in(kept: House) -> None:
    _, failing, _, doubtful, *_ = work(kept.producer)
    surefoot(kept, "resolve", doubtful, "--abandon", "--reason", "nobody knows", "--who", "ada")
    listed = json_lines(surefoot(kept, "audit", "--since", "10m", "--json"))
    assert [(act["act"], act["target"], act["who"], act["reason"]) for act in listed] == [
        ("resolve", doubtful, "ada", "nobody knows")
    ]
    assert listed[0]["via"].startswith("cli on ")
    assert "resolve verdict=abandon" in surefoot(kept, "audit", "--job", doubtful).stdout
    assert json_lines(surefoot(kept, "audit", "--job", failing, "--json")) == []
    refused = surefoot(kept, "audit", "--since", "yesterday")
    assert (refused.returncode, "is no time" in refused.stderr) == (2, True)


def test_anchors_that_were_written_can_be_read(kept: House) -> None:
    work(kept.producer)
    until((kept.folder / "anchors").exists)
    (first, *_) = read_anchors(kept.folder / "anchors")
    assert (first["seal"] >= 1, len(first["signature"])) == (True, 64)
