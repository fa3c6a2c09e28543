"""The files in deploy/compose, each over the first: read by the compose tool, and shown to work on a real engine."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.compose import (
    BASE_IMAGES,
    COMPOSE_FILE,
    INSIDE_URL,
    Project,
    answers,
    compose_tool,
    project_of,
    run,
)
from tests.houses import ROOT
from tests.unit.markdown import DOCS

FOLDER = ROOT / "deploy" / "compose"
FILES = sorted(file.name for file in FOLDER.glob("*.yml"))
PARAMS = json.dumps({"method": "GET", "url": INSIDE_URL})
# What the page on deploying says to run for passwords from files.
MAKES_SECRETS = re.search(
    r"^```sh\n(mkdir --mode=700 \.secrets\n.*?)^```", (DOCS / "deploy.md").read_text(), re.MULTILINE | re.DOTALL
)

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("file", FILES)
def test_a_file_is_read_over_the_first_one_and_says_how_to_use_it(file: str, tmp_path: Path) -> None:
    names = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD", "RABBITMQ_PASSWORD")
    (tmp_path / "env").write_text("".join(f"{name}=x\n" for name in names))
    command = [*compose_tool(), "-f", COMPOSE_FILE, "-f", f"deploy/compose/{file}", "--env-file", str(tmp_path / "env")]
    done = subprocess.run([*command, "config"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert f"-f docker-compose.yml -f deploy/compose/{file}" in (FOLDER / file).read_text()


def test_live_code_is_the_checkout_s(tmp_path: Path) -> None:
    files = ["deploy/compose/development.yml"]
    with project_of(tmp_path, files=files, services=("worker",)) as project:
        script = "import worker.meter, pathlib; print(pathlib.Path(worker.meter.__file__).read_bytes().hex())"
        told = run("docker", "exec", project.workers()[0], "python", "-c", script).strip()
        assert bytes.fromhex(told) == (ROOT / "worker" / "meter.py").read_bytes()


@pytest.fixture
def with_rabbitmq(tmp_path: Path) -> Iterator[Project]:
    if not answers("docker", "image", "inspect", "rabbitmq:4"):
        pytest.skip(f"rabbitmq:4 is not on this machine, beside {', '.join(BASE_IMAGES)}")
    with project_of(tmp_path, files=["deploy/compose/rabbitmq.yml"], services=("rabbitmq", "worker", "flower")) as made:
        yield made


def test_rabbitmq_carries_the_rings_in_a_quorum_queue(with_rabbitmq: Project) -> None:
    asked = with_rabbitmq.surefoot("enqueue", "http.request", PARAMS, "--key", "over-rabbitmq", "--wait", "60")[0]
    assert asked["state"] == "succeeded"
    (rabbitmq,) = with_rabbitmq.containers("rabbitmq")
    queues = run("docker", "exec", rabbitmq, "rabbitmqctl", "--quiet", "list_queues", "name", "type")
    assert "actions\tquorum" in queues


def test_passwords_from_files_are_in_no_container_s_environment_and_work(tmp_path: Path) -> None:
    assert MAKES_SECRETS is not None
    subprocess.run(["bash", "-euo", "pipefail", "-c", MAKES_SECRETS[1]], cwd=tmp_path, check=True, timeout=30)
    settings = {"SECRETS_FOLDER": str(tmp_path / ".secrets")}
    unused = dict.fromkeys(("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FLOWER_PASSWORD"), "file")
    files = ["deploy/compose/secrets.yml"]
    with project_of(tmp_path, settings=settings | unused, files=files) as project:
        asked = project.surefoot("enqueue", "http.request", PARAMS, "--key", "from-files", "--wait", "60")[0]
        assert asked["state"] == "succeeded"
        folder = tmp_path / ".secrets"
        secrets = [(folder / "postgres_password").read_text(), (folder / "flower_basic_auth").read_text().split(":")[1]]
        secrets.append((folder / "redis_conf").read_text().split()[1])
        for service in ("postgres", "redis", "worker", "api", "flower", "migrate"):
            shown = run("docker", "inspect", *project.containers(service))
            assert not [secret for secret in secrets if secret in shown], service
        assert project.flower("/workers", secrets[1]).status_code == 200
        assert project.flower("/workers", "file").status_code == 401
