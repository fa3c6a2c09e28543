"""What is known of our dependencies: their list is whole, and nobody is told that all is well who could not ask."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.houses import ROOT

NOBODY = "http://127.0.0.1:1"


def test_the_sbom_has_every_package_of_the_lock_file_with_its_version_and_hashes(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("cyclonedx-py")
    words = [
        "requirements",
        str(ROOT / "requirements.lock"),
        "--output-file",
        str(tmp_path / "sbom.json"),
        "--validate",
    ]
    subprocess.run([program, *words], check=True, capture_output=True, timeout=60)
    sbom = json.loads((tmp_path / "sbom.json").read_text())
    pinned = set(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert len(pinned) > 100
    assert {(component["name"], component["version"]) for component in sbom["components"]} == pinned
    assert all(component["externalReferences"][0]["hashes"] for component in sbom["components"])


def test_an_audit_that_can_ask_nobody_says_so_and_does_not_say_that_all_is_well() -> None:
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOBODY)
    command = [sys.executable, "-m", "tests.audit"]
    environment = os.environ | proxies | {"NO_PROXY": "", "no_proxy": ""}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "not audited" in done.stderr
    assert "No known vulnerabilities" not in done.stdout
