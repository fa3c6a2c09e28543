"""Somebody who does what a page says, in his shell, and fills in what is his to fill in."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.containers.compose import BUILD_SECONDS, HEALTHY_SECONDS, INSIDE_URL, Project
from tests.houses import until

COMMAND_SECONDS = 300
# A harmless request, from inside the network.
PARAMS = json.dumps({"method": "GET", "url": INSIDE_URL})
# One of which nobody can say what became of it: Redis hangs up on what speaks HTTP, once it has read it.
DOUBTFUL = json.dumps({"method": "POST", "url": "http://redis:6379/", "json": {"pay": 1}})


@dataclass(slots=True)
class Reader:
    """One of them.

    Attributes:
        project: What stands there.
        folder: Where he is.
        compose: What he writes for `docker compose`.
        words: What he fills in where the page leaves something to him, by what stands there.
        said: What each command has printed, the latest last.
    """

    project: Project
    folder: Path
    compose: str
    words: Mapping[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def do(self, script: str) -> str:
        """Run it as it stands, in a shell of its own; return what it printed."""
        for name, word in self.words.items():
            script = script.replace(name, word)
        for service in re.findall(r"exec -T (worker|api)\b", script):
            until(lambda s=service: set(self.project.healths(s)) == {"healthy"}, seconds=HEALTHY_SECONDS)  # type: ignore[misc]
        if re.search(r"\bJOB\b", script):
            script = re.sub(r"\bJOB\b", self.job_in_doubt(), script)
        if re.search(r"\bCONTAINER\b", script):
            script = re.sub(r"\bCONTAINER\b", self.project.workers()[0], script)
        script = re.sub(r"\bdocker compose\b", lambda _: self.compose, script)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS if "build" in script else COMMAND_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        self.said.append(done.stdout)
        return done.stdout

    def job_in_doubt(self) -> str:
        """Ask for what ends in doubt; return which job that is."""
        key = f"doubtful-{len(self.said)}"
        (asked,) = self.project.surefoot("enqueue", "http.request", DOUBTFUL, "--key", key)
        until(lambda: self.project.surefoot("show", asked["id"])[0]["state"] == "in_doubt", seconds=60)
        job: str = asked["id"]
        return job
