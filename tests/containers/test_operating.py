"""docs/operating.md: every command of docker's in it, on real containers, in its order."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.compose import Project, project_of
from tests.containers.reader import PARAMS, Reader
from tests.houses import ROOT
from tests.page_commands import blocks, in_text

pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with project_of(tmp_path_factory.mktemp("operating"), settings={"WORKER_JOBS": "10"}) as made:
        yield made


@pytest.fixture
def reader(project: Project, tmp_path: Path) -> Reader:
    """In a folder of his own, where he finds what the checkout's deploy/ has, and may leave his dumps."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    tool = (*project.tool, "--project-directory", str(ROOT), "-f", str(ROOT / project.files[0]))
    return Reader(
        project,
        tmp_path,
        compose=shlex.join([*tool, "-p", project.name, "--env-file", str(project.env_file)]),
        words={"surefoot …": "surefoot breakers"},
    )


def test_every_command_on_the_page_works_in_its_order_and_a_backup_brings_the_ledger_back(
    project: Project, reader: Reader
) -> None:
    (asked,) = project.surefoot("enqueue", "http.request", PARAMS, "--key", "before-all", "--wait", "30")
    assert asked["state"] == "succeeded"
    lines = [each.text for block in blocks("operating.md") for each in block if each.program != "kubectl"]
    for line in lines:
        reader.do(line)
    assert len(lines) > 25
    # The ledger was taken away and brought back on the way.
    assert any("dropdb" in line for line in lines)
    (again,) = project.surefoot("enqueue", "http.request", PARAMS, "--key", "before-all")
    assert (again["outcome"], again["id"]) == ("replayed", asked["id"])
    (new,) = project.surefoot("enqueue", "http.request", PARAMS, "--key", "after-all", "--wait", "60")
    assert new["state"] == "succeeded"
    # And what stands within the text; the last of it is a worker's end.
    beside = [each.text for each in in_text("operating.md") if each.program == "docker"]
    for line in sorted(beside, key=lambda line: "docker stop" in line):
        reader.do(line)
