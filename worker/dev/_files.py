"""Small files of a server's folder, and the files of the servers' wheels."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from worker.dev._errors import ServerMissing

__all__ = ["remember", "sync_folder", "wheel_file", "write_private"]


def remember(path: Path, make: Callable[[], str]) -> str:
    """What `path` holds; on the first call what `make` returns, written for this user's eyes only."""
    if not path.exists():
        write_private(path, make())
    return path.read_text().strip()


def write_private(path: Path, text: str) -> None:
    """Write `path` whole or not at all, mode 0600, on disk before it returns."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)  # so that the mode below applies
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(descriptor)
    fresh.replace(path)


def sync_folder(folder: Path) -> None:
    """Put the names in `folder` on disk, which syncing the files does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def wheel_file(package: str, pattern: str) -> Path:
    """The file that matches `pattern` in an installed package, found without importing it.

    The servers' wheels are alpha in their Python part, and importing one of them warns about the environment.

    Raises:
        ServerMissing: If the package or the file is not there.
    """
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for path in Path(place).glob(pattern):
            return path
    raise ServerMissing(f"{package} has no {pattern} here; install it with: pip install 'surefoot[dev]'")
