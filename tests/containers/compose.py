"""A compose project of the tests' own on a real engine. Pulls nothing: what is not here is skipped, and said."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
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
SERVICES = ("postgres", "redis", "worker", "api", "flower")
# The page of Flower's that asks for no password: a URL that the worker can reach without leaving the network.
INSIDE_URL = "http://flower:5555/healthcheck"


@dataclass(frozen=True, slots=True)
class Project:
    """One compose project of the tests' own, told apart by its name."""

    tool: tuple[str, ...]
    name: str
    env_file: Path
    flower_password: str
    files: tuple[str, ...] = (COMPOSE_FILE,)

    def compose(self, *words: str, seconds: float = COMMAND_SECONDS) -> str:
        files = [word for file in self.files for word in ("-f", file)]
        options = (*files, "-p", self.name, "--env-file", str(self.env_file))
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


@cache
def compose_tool() -> tuple[str, ...]:
    """Whichever of the two compose tools is there."""
    if not answers("docker", "info"):
        pytest.skip("no Docker engine answers here")
    for tool in (("docker", "compose"), ("docker-compose",)):
        if answers(*tool, "version"):
            return tool
    pytest.skip("neither `docker compose` nor docker-compose is here")


@contextmanager
def project_of(
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    files: Sequence[str] = (),
    services: Sequence[str] = SERVICES,
) -> Iterator[Project]:
    """The whole project, built and up, with one worker; taken down with its volumes whatever happens.

    Args:
        folder: For its environment.
        settings: In that beside passwords and ports.
        files: Compose files over the first.
        services: To be healthy before it is handed over.
    """
    tool = compose_tool()
    missing = [image for image in BASE_IMAGES if not answers("docker", "image", "inspect", image)]
    if missing:
        pytest.skip(f"base images are not on this machine, and tests pull nothing: {', '.join(missing)}")
    env_file = folder / "env"
    names = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD", "RABBITMQ_PASSWORD")
    passwords = {name: secrets.token_hex(24) for name in names}
    # Port 0 is any free one.
    ours = {"SUREFOOT_IMAGE": IMAGE, "FLOWER_PORT": "0", "API_PORT": "0", "WORKER_JOBS": "20"}
    told = passwords | ours | dict(settings or {})
    env_file.write_text("".join(f"{name}={value}\n" for name, value in told.items()))
    name = f"surefoottest{secrets.token_hex(4)}"
    made = Project(tool, name, env_file, passwords["FLOWER_PASSWORD"], (COMPOSE_FILE, *files))
    try:
        # One service, since docker-compose 1.29 would build the image once for each that names it.
        made.compose("build", "migrate", seconds=BUILD_SECONDS)
        made.compose("up", "-d")
        for service in services:
            until(lambda s=service: made.healths(s) == ["healthy"], seconds=HEALTHY_SECONDS)  # type: ignore[misc]
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
