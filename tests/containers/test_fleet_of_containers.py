"""A fleet of worker containers, asked by a service in another: nothing is lost or done twice, whatever is killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.containers.compose import BUILD_SECONDS, SERVICES, Project, project_of, run
from tests.houses import ROOT, until

JOBS = 2_000
FLEET = ROOT / "tests" / "containers" / "fleet"
SERVICE_IMAGE = "surefoot-service:test"
RUN_SECONDS = 400
# What one worker takes up at a time here, and how long a waiting action waits: ten a second and worker, so that what
# waits is the jobs and not the machine. A sync action, since a ring of several jobs may exceed a worker's places.
WAITING, WAIT_SECONDS, WAVES = 20, 2.0, 8

DOCKERFILE = """
FROM python:3.13-slim
COPY *.whl /
RUN python -m venv /venv && /venv/bin/python -m pip install --quiet --no-cache-dir /*.whl
COPY service.py /service.py
ENTRYPOINT ["/venv/bin/python", "/service.py"]
"""

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with project_of(
        tmp_path_factory.mktemp("fleet"), files=["tests/containers/fleet/compose.yml"], services=SERVICES
    ) as made:
        yield made


@dataclass(frozen=True, slots=True)
class World:
    """The other side's container."""

    name: str

    def asked(self) -> dict[str, int]:
        """How often it was asked for each key."""
        script = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8000/').read().decode())"
        answer: dict[str, int] = json.loads(run("docker", "exec", self.name, "python", "-c", script))
        return answer


@pytest.fixture(scope="module")
def world(fleet: Project) -> Iterator[World]:
    name = f"{fleet.name}-world"
    mount = f"{FLEET / 'world.py'}:/world.py:ro"
    network = ("--network", f"{fleet.name}_inside", "--network-alias", "world")
    run(
        "docker",
        "run",
        "--detach",
        "--name",
        name,
        *network,
        "--volume",
        mount,
        "python:3.13-slim",
        "python",
        "/world.py",
    )
    yield World(name)
    run("docker", "rm", "--force", name)


@pytest.fixture(scope="module")
def service_image(fleet: Project, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image with the package as another service installs it: without extras, and so without any worker's needs."""
    folder = tmp_path_factory.mktemp("service")
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*wheel, str(folder), str(ROOT)], check=True, timeout=120)
    shutil.copy(FLEET / "service.py", folder)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    run("docker", "build", "--quiet", "--tag", SERVICE_IMAGE, str(folder), seconds=BUILD_SECONDS)
    assert fleet.name
    return SERVICE_IMAGE


@dataclass(frozen=True, slots=True)
class Service:
    """A service's container, which asks for jobs."""

    fleet: Project
    name: str

    def outcome(self) -> dict[str, Any]:
        """What it says at its end."""
        status = run("docker", "wait", self.name, seconds=RUN_SECONDS).strip()
        told = run("docker", "logs", self.name)
        assert status == "0", run("sh", "-c", f"docker logs {self.name} 2>&1")
        outcome: dict[str, Any] = json.loads(told.splitlines()[-1])
        return outcome


def serve(fleet: Project, action: str, params: dict[str, Any], jobs: int, *, name: str, pause: float = 0.0) -> Service:
    """Start a service on the fleet's inner network; it knows two URLs and nothing else."""
    passwords = dict(line.split("=", 1) for line in fleet.env_file.read_text().splitlines())
    database = f"postgresql://surefoot:{passwords['POSTGRES_PASSWORD']}@surefoot-postgres:5432/surefoot"
    urls = {
        "SUREFOOT_DATABASE_URL": database,
        "SUREFOOT_REDIS_URL": f"redis://:{passwords['REDIS_PASSWORD']}@surefoot-redis:6379/0",
    }
    told = [word for variable, url in urls.items() for word in ("--env", f"{variable}={url}")]
    container = f"{fleet.name}-{name}"
    words = (SERVICE_IMAGE, action, json.dumps(params), str(jobs), name, str(pause))
    run("docker", "run", "--detach", "--name", container, "--network", f"{fleet.name}_inside", *told, *words)
    return Service(fleet, container)


def psql(fleet: Project, query: str) -> str:
    (postgres,) = fleet.containers("postgres", stopped=False)
    words = ("psql", "--username", "surefoot", "--no-align", "--tuples-only", "--command", query)
    return run("docker", "exec", postgres, *words).strip()


def succeeded(fleet: Project) -> int:
    return int(psql(fleet, "SELECT count(*) FROM jobs WHERE state = 'succeeded'"))


def test_two_thousand_jobs_are_done_once_while_a_worker_redis_and_postgres_are_taken_away(
    fleet: Project, world: World, service_image: str
) -> None:
    assert service_image
    fleet.scale(3)
    service = serve(fleet, "fleet.effect", {"url": "http://world:8000/"}, JOBS, name="shop", pause=0.3)
    until(lambda: succeeded(fleet) > 200, seconds=120)
    run("docker", "kill", fleet.workers()[0])
    fleet.compose("up", "-d", "--scale", "worker=4")
    (redis,) = fleet.containers("redis")
    before = succeeded(fleet)
    run("docker", "pause", redis)
    until(lambda: succeeded(fleet) > before, seconds=120)  # what workers had taken up goes on without it
    run("docker", "unpause", redis)
    run("docker", "restart", *fleet.containers("postgres"))
    outcome = service.outcome()
    assert outcome == {"ends": {"succeeded": JOBS}, "again": "replayed", "asked": JOBS}
    # Each has its own key, and each key's effect was had: what died in somebody's hands was asked for again by it.
    asked = world.asked()
    assert len(asked) == JOBS
    assert psql(fleet, "SELECT count(*), count(DISTINCT idempotency_key) FROM jobs") == f"{JOBS}|{JOBS}"
    assert psql(fleet, "SELECT count(*) FROM events WHERE kind = 'succeeded'") == str(JOBS)
    run("docker", "rm", service.name)


def test_flower_shows_every_worker(fleet: Project) -> None:
    fleet.scale(4)
    names = {f"celery@{container[:12]}" for container in fleet.workers()}
    assert len(names) == 4

    def shown() -> bool:
        answer = fleet.flower("/api/workers?refresh=1", fleet.flower_password)
        return answer.status_code == 200 and names <= set(answer.json())

    until(shown, seconds=60)
    tasks = fleet.flower("/api/tasks?limit=50&taskname=fleet.effect", fleet.flower_password).json()
    assert tasks


def throughput(fleet: Project, workers: int, service_image: str) -> float:
    """Waiting jobs that so many workers do in a second, by the ledger's clock, from the first claim to the last end."""
    assert service_image
    fleet.scale(workers)
    jobs, name = WAITING * WAVES * workers, f"waiting-{workers}"
    service = serve(fleet, "fleet.wait", {"seconds": WAIT_SECONDS}, jobs, name=name)
    assert service.outcome()["ends"] == {"succeeded": jobs}
    run("docker", "rm", service.name)
    seconds = psql(
        fleet,
        "SELECT extract(epoch FROM max(j.finished_at) - min(e.at)) FROM jobs j JOIN events e ON e.job_id = j.id"
        f" WHERE e.kind = 'claimed' AND j.idempotency_key LIKE '{name}-%'",
    )
    return jobs / float(seconds)


def test_three_workers_do_nearly_three_times_as_much_that_waits_as_one(fleet: Project, service_image: str) -> None:
    alone, together = throughput(fleet, 1, service_image), throughput(fleet, 3, service_image)
    assert together / alone >= 2.7, (alone, together)
