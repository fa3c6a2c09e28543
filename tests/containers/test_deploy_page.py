"""docs/deploy.md: every command in it, on real containers, in its order, in a checkout of its reader's own."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.brokers import free_port
from tests.containers.compose import BASE_IMAGES, HEALTHY_SECONDS, IMAGE, Project, answers, compose_tool, run
from tests.containers.reader import PARAMS, Reader
from tests.houses import ROOT, until
from tests.page_commands import blocks, in_text, sources

pytestmark = pytest.mark.timeout(1200)

NOT_THEIRS = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".hypothesis", ".surefoot", "tests")
# Tells when it is told something.
LISTENER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
        print("told", flush=True)
HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""


class Checkout(NamedTuple):
    """A reader, and where he listens for alerts."""

    reader: Reader
    listener: str


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    """A copy of the checkout, with nothing of a deploy in it yet."""
    tool = compose_tool()
    if missing := [image for image in BASE_IMAGES if not answers("docker", "image", "inspect", image)]:
        pytest.skip(f"base images are not on this machine, and tests pull nothing: {', '.join(missing)}")
    folder, name = tmp_path / "checkout", f"surefoottest{secrets.token_hex(4)}"
    shutil.copytree(ROOT, folder, ignore=NOT_THEIRS)
    project = Project(tool, name, folder / ".env", "")
    ports = {"API_PORT": str(free_port()), "FLOWER_PORT": str(free_port())}
    own = {"SUREFOOT_IMAGE": IMAGE, "WORKER_JOBS": "10", **ports}
    words = {
        # Beside what the page has him write, this machine's: another name, other ports, another image.
        "echo COMPOSE_PROJECT_NAME=surefoot >> .env": (
            f"printf '{_lines(own)}' >> .env\necho COMPOSE_PROJECT_NAME={name} >> .env"
        ),
        "127.0.0.1:8100": f"127.0.0.1:{ports['API_PORT']}",
        "slack://TOKENS/#agents": f"json://{name}-listener:8000/",
    }
    try:
        yield Checkout(Reader(project, folder, " ".join(tool), words), f"{name}-listener")
    finally:
        if (folder / ".env").exists():
            project.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")


def _lines(settings: dict[str, str]) -> str:
    return "".join(f"{name}={value}\\n" for name, value in settings.items())


def test_every_command_on_the_page_works_in_its_order(checkout: Checkout) -> None:
    reader, project = checkout.reader, checkout.reader.project
    for block in blocks("deploy.md"):
        script = "\n".join(each.text for each in block)
        if "KEY" in script and "keys create" not in script:
            script = script.replace("KEY", _key_in(reader.said))
        if "alert-test" in script:
            with _listening(project, checkout.listener) as told:
                reader.do(script)
                until(told, seconds=30)
        else:
            said = reader.do(script)
        if "/v1/actions" in script:
            assert '"http.request"' in said
        if "hello-1" in script:
            assert "succeeded, key hello-1" in said
        if script.startswith("new="):  # the password that it changed is in use
            _is_well(project)
    beside = [each.text for each in in_text("deploy.md") if each.program == "docker"]
    assert beside[-1] == "docker compose down --volumes"
    for line in beside[:-1]:
        reader.do(line)
    _is_well(project)
    _a_service_asks(reader)
    reader.do(beside[-1])
    assert run("docker", "volume", "ls", "--quiet", "--filter", f"name={project.name}_").split() == []


@contextmanager
def _listening(project: Project, name: str) -> Iterator[Callable[[], bool]]:
    """Run a container that alerts can reach; hand over whether it was told one."""
    network = ("--network", f"{project.name}_outside")
    run("docker", "run", "--detach", "--name", name, *network, "python:3.13-slim", "python", "-c", LISTENER)
    try:
        yield lambda: "told" in run("docker", "logs", name)
    finally:
        run("docker", "rm", "--force", name)


def _is_well(project: Project) -> None:
    until(lambda: set(project.healths("worker")) == {"healthy"}, seconds=HEALTHY_SECONDS)
    (asked,) = project.surefoot("enqueue", "http.request", PARAMS, "--key", secrets.token_hex(4), "--wait", "60")
    assert asked["state"] == "succeeded"


def _key_in(said: list[str]) -> str:
    """The key that an earlier command printed, which is shown once."""
    found: list[str] = [key for text in said for key in re.findall(r"\bsf_[A-Za-z0-9_-]{20,}", text)]
    assert found, said[-3:]
    return found[-1]


def _a_service_asks(reader: Reader) -> None:
    """Another service on the host, by the page's own Compose file and Python."""
    service, override = (yaml.safe_load(text) for text in sources("deploy.md", "yaml"))
    (asks,) = sources("deploy.md", "python")
    folder = reader.folder.parent / "shop"
    folder.mkdir()
    service["services"]["shop"] |= {"image": IMAGE, "command": ["python", "-c", f"{asks}\nprint(job.outcome)"]}
    service["networks"]["surefoot"]["name"] = f"{reader.project.name}_inside"
    (folder / "docker-compose.yml").write_text(yaml.safe_dump(service))
    shutil.copy(reader.folder / ".env", folder / ".env")
    tool = reader.compose
    asking = Reader(reader.project, folder, tool)
    assert "created" in asking.do(f"docker compose -p {reader.project.name}shop run --rm shop")
    asking.do(f"docker compose -p {reader.project.name}shop down")
    # For one on another host there is no address here to publish it on: the file is read over the first.
    (reader.folder / "docker-compose.override.yml").write_text(yaml.safe_dump(override))
    read = yaml.safe_load(reader.do("docker compose config"))
    assert set(override["services"]) <= set(read["services"])
    (reader.folder / "docker-compose.override.yml").unlink()
