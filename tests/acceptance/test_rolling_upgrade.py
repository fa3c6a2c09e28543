"""A rolling upgrade, and the way back, in the order of docs/operating.md.

Surefoot as it was before its newest migration, and as it is: each a real worker with its own build of a user's actions.
Nothing is lost, and nothing is done by a build that means something else by it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from producer import Job, Producer, Settings, State
from producer.ledger.engine import open_engine
from producer.ledger.revision import REVISION, revision_of
from tests.acceptance.test_cli import run
from tests.houses import ROOT, WorkerProcess, start_worker, until, worker_environment
from worker.start import worker_command

pytestmark = pytest.mark.timeout(900)

# Older code may ring a job several times, ever later, until a worker has it that knows it.
SECONDS = 200.0
HERE = str(ROOT)
USERS_CODE = ROOT / "tests" / "rolling"
MIGRATIONS = "producer/ledger/migrations/versions"
# What a producer of any version does: it asks, and says which job that is.
ASK = """
import json, sys
from producer import Producer
producer = Producer()
for request in json.load(sys.stdin):
    print(producer.enqueue(request.pop("action"), request.pop("params"), **request).id)
producer.close()
"""


def git(*words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, timeout=60, check=False)
    if done.returncode:
        pytest.skip(f"the version before is taken from git, which says: {done.stderr.decode()[-300:]}")
    return done.stdout


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Surefoot as it was before its newest migration: what somebody upgrades from."""
    newest = max(file.name for file in (ROOT / MIGRATIONS).glob("[0-9]*.py"))
    made_in = git("log", "-1", "--diff-filter=A", "--format=%H", "--", f"{MIGRATIONS}/{newest}").decode().strip()
    archive = git("archive", f"{made_in}^" if made_in else "HEAD")
    folder = tmp_path_factory.mktemp("before")
    subprocess.run(["tar", "-xf", "-"], input=archive, cwd=folder, timeout=60, check=True)
    return folder


@dataclass(slots=True)
class Upgrade:
    """A ledger, an old and a new Surefoot, and all that was ever asked of them.

    What was asked is looked at with the new one, so not before the schema is: it may ask for more than the old has.
    """

    settings: Settings
    folder: Path
    before: Path
    producer: Producer
    ids: dict[str, str] = field(default_factory=dict)
    workers: list[WorkerProcess] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def code(self, *, old: bool) -> dict[str, str]:
        """The environment in which that Surefoot runs with its build of the actions."""
        path = [str(self.before), str(USERS_CODE)] if old else [str(USERS_CODE)]
        module = "rolled_now" if old else "rolled_next"
        return {"PYTHONPATH": os.pathsep.join(path), "SUREFOOT_ACTION_MODULES": module}

    def start(self, *, old: bool, concurrency: int = 2) -> WorkerProcess:
        """Start a worker of either; its log tells it from the others, by its name."""
        log, tree = self.folder / f"worker-{len(self.workers)}.log", self.before if old else ROOT
        worker = start_worker(self.settings, log, concurrency=concurrency, environment=self.code(old=old), folder=tree)
        self.workers.append(worker)
        return worker

    def run(self, *words: str, stdin: str = "", old: bool) -> subprocess.CompletedProcess[str]:
        """Run Python in one of the two."""
        return subprocess.run(
            [sys.executable, "-c", *words],
            env=worker_environment(self.settings) | self.code(old=old),
            cwd=self.before if old else ROOT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def ask(self, key: str, action: str, *, old: bool = True, **params: Any) -> None:
        """Ask for an action as a service does that has that Surefoot."""
        asked = {"log": str(self.log), **params}
        wanted = {"action": action, "params": asked, "idempotency_key": key.replace(" ", "-")}
        done = self.run(ASK, stdin=json.dumps([wanted]), old=old)
        assert done.returncode == 0, done.stderr
        self.ids[key] = done.stdout.strip()

    def job(self, key: str) -> Job:
        """Look at what was asked under that key."""
        return self.producer.job(self.ids[key])

    def effects(self) -> Mapping[str, list[dict[str, Any]]]:
        """What was done, by the key that it was asked under."""
        keys = {job_id: key for key, job_id in self.ids.items()}
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in self.log.read_text().splitlines() if self.log.exists() else []:
            told = json.loads(line)
            found[keys[told["job"]]].append(told)
        return found

    def ends_well(self, *keys: str) -> None:
        assert {key: self.job(key).wait(SECONDS).state for key in keys} == dict.fromkeys(keys, State.SUCCEEDED)


@pytest.fixture
def upgrade(before: Path, settings: Settings, empty_url: str, tmp_path: Path) -> Iterator[Upgrade]:
    its = dataclasses.replace(settings, database_url=empty_url)
    made = Upgrade(its, tmp_path, before, Producer(its))
    done = made.run("from producer.cli import main; main()", "migrate", old=True)
    assert done.returncode == 0, done.stderr
    yield made
    for worker in made.workers:
        worker.stop()
    made.producer.close()


def revision(settings: Settings) -> str | None:
    engine = open_engine(settings.database_url, connections=1, name="tests")
    try:
        return revision_of(engine)
    finally:
        engine.dispose()


def test_a_rolling_upgrade_and_the_way_back_lose_nothing_and_have_nothing_done_by_the_wrong_version(
    upgrade: Upgrade,
) -> None:
    ask = upgrade.ask
    gate, last_gate = (str(upgrade.folder / name) for name in ("gate", "last-gate"))
    # An older schema: the new worker ends, and says what it wants. Whoever supervises it starts it anew.
    old_revision = revision(upgrade.settings)
    assert old_revision is not None
    assert refuses_to_start(upgrade) == {"revision": old_revision, "needed": REVISION}
    old = upgrade.start(old=True, concurrency=3)
    ask("begun before", "rolled.same", gate=gate)
    ask("run to its end", "rolled.same", gate=last_gate)
    until(lambda: len(upgrade.effects()) == 2)

    # The schema first. Old code goes on over it: what it runs, and what is asked of it.
    migrated = run(upgrade.settings, "surefoot", "migrate")
    assert f"schema {old_revision} → {REVISION}" in migrated.stdout, migrated.stderr
    ask("over the new schema", "rolled.same")
    upgrade.ends_well("over the new schema")
    ask("fills it", "rolled.same", gate=gate)
    until(lambda: "fills it" in upgrade.effects())
    ask("as it was meant", "rolled.changed", amount=5)
    ask("while it could", "rolled.removed")

    # Then workers, the new beside the old, which is full. Who asks is the old service still, for one thing but.
    upgrade.start(old=False)
    ask("as it is meant", "rolled.changed", amount=5)
    ask("only since", "rolled.added", old=False)
    upgrade.ends_well("as it is meant", "only since")
    Path(gate).touch()
    upgrade.ends_well("begun before", "fills it", "as it was meant", "while it could")

    # Old ones end by themselves, once what they run has.
    old.process.terminate()
    until(lambda: old.events("worker.stopping"))
    ask("after the old one", "rolled.same")
    upgrade.ends_well("after the old one")
    assert old.process.poll() is None
    Path(last_gate).touch()
    assert old.process.wait(SECONDS) == 0
    upgrade.ends_well("run to its end")

    # What nobody knows any more waits. The way back is the image before, and the schema stays.
    ask("nobody's now", "rolled.removed")
    ask("goes past it", "rolled.same")
    upgrade.ends_well("goes past it")
    assert upgrade.job("nobody's now").state is State.QUEUED
    assert upgrade.workers[-1].stop() == 0
    ask("for when it is back", "rolled.changed", amount=7)
    upgrade.start(old=True)
    upgrade.ends_well("nobody's now")
    assert upgrade.job("for when it is back").state is State.QUEUED
    assert revision(upgrade.settings) == REVISION

    # And forth again.
    assert upgrade.workers[-1].stop() == 0
    upgrade.start(old=False)
    upgrade.ends_well("for when it is back")
    check(upgrade)


def refuses_to_start(upgrade: Upgrade) -> dict[str, str]:
    """Start the new worker over the old schema; return what it says when it has ended."""
    done = subprocess.run(
        worker_command(["--concurrency", "1"]),
        env=worker_environment(upgrade.settings) | upgrade.code(old=False),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    lines = [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]
    (told,) = (line for line in lines if line.get("event") == "schema.behind")
    return {name: told[name] for name in ("revision", "needed")}


def check(upgrade: Upgrade) -> None:
    """Everything that was asked is done once, by a Surefoot and a build that means that by it."""
    effects = upgrade.effects()
    assert {key: len(lines) for key, lines in effects.items()} == dict.fromkeys(upgrade.ids, 1)
    meant = {key: lines[0]["meant"] for key, lines in effects.items()}
    assert meant["as it was meant"] == "5 cents"
    assert (meant["as it is meant"], meant["for when it is back"]) == ("5 euros", "7 euros")
    assert {lines[0]["code"] for lines in effects.values()} == {HERE, str(upgrade.before)}
    by_old = {key for key, lines in effects.items() if lines[0]["code"] != HERE}
    assert by_old >= {"begun before", "run to its end", "over the new schema", "fills it", "as it was meant"}
    assert by_old >= {"while it could", "nobody's now"}
    # What either may do, the old one may have taken up in the moment in which it was told to end.
    assert not by_old & {"as it is meant", "only since", "for when it is back", "goes past it"}
    for key in upgrade.ids:
        kinds = [event.kind for event in upgrade.job(key).events]
        assert (kinds.count("intended"), kinds.count("succeeded")) == (1, 1), key
    # What both wrote is one record, and holds.
    assert upgrade.producer.verify().is_sound


FROM_THE_FUTURE = """
ALTER TABLE jobs ADD COLUMN mood text;
CREATE TABLE moods (mood text PRIMARY KEY);
CREATE INDEX jobs_by_mood ON jobs (mood) WHERE mood IS NOT NULL;
UPDATE alembic_version SET version_num = '9999';
"""


def test_over_a_schema_of_newer_code_this_one_starts_performs_checks_and_migrates_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    """What a way back is, with Compose or on Kubernetes: the image before runs its own migration first."""
    engine = open_engine(settings.database_url, connections=1, name="tests")
    with engine.begin() as connection:
        connection.execute(text(FROM_THE_FUTURE))
    engine.dispose()
    migrated = run(settings, "surefoot", "migrate")
    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert f"schema 9999 stays as it is: newer code made it, and this version's is {REVISION}" in migrated.stdout
    assert revision(settings) == "9999"
    checked = run(settings, "surefoot-worker", "check")
    assert checked.returncode == 0, checked.stdout
    assert f"schema 9999, newer than this version's {REVISION}" in checked.stdout
    worker, producer = start_worker(settings, tmp_path / "worker.log"), Producer(settings)
    try:
        assert producer.enqueue("test.add", {"a": 1, "b": 2}).get(SECONDS) == {"total": 3}
    finally:
        producer.close()
        worker.stop()
