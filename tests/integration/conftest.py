"""A folder of development servers that has had its first start, the slow one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from worker.dev.servers import Postgres


@pytest.fixture(scope="session")
def made_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with Postgres(folder):
        return folder


@pytest.fixture
def folder(made_folder: Path, tmp_path: Path) -> Path:
    """A copy, so that a test's first start is the folder's second."""
    shutil.copytree(
        made_folder / "postgres", tmp_path / "postgres", ignore=shutil.ignore_patterns("port", "token", "lock", "log")
    )
    return tmp_path
