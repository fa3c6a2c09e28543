"""What the pages say to do on Kubernetes, by a real kubectl against a stand-in for a cluster, in the order of the page.

The stand-in takes what is valid by Kubernetes' own schemas, and KEDA's. It runs nothing.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.houses import ROOT
from tests.kube_stand_in import NODE, Cluster, cluster_of
from tests.page_commands import PAGES, Command, commands
from tests.unit.test_deploy_files import MANIFESTS, documents

# Older ones have the client look for fields that nobody knows, by a schema in a form that the stand-in does not have.
OLDEST = 27
ALL = [each for page in PAGES for each in commands(page) if each.program == "kubectl"]
# Its own clients speak protobuf, which the stand-in does not: what they would create is printed, and created from that.
BY_ITSELF = "create "
# Within the text `…` is any words for `surefoot`.
PLACEHOLDERS = {"NODE": NODE, "…": "jobs"}


def minor_version() -> int:
    """Of the kubectl that is here; 0 where there is none."""
    if shutil.which("kubectl") is None:
        return 0
    told = subprocess.run(
        ["kubectl", "version", "--client", "--output=json"], capture_output=True, text=True, timeout=60, check=True
    )
    return int(re.sub(r"\D", "", json.loads(told.stdout)["clientVersion"]["minor"]))


pytestmark = pytest.mark.skipif(minor_version() < OLDEST, reason=f"kubectl 1.{OLDEST} or newer is not installed here")


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Somebody at a terminal, in the checkout."""

    cluster: Cluster
    config: Path

    def run(self, line: str, *, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"KUBECONFIG": str(self.config), "HOME": str(self.config.parent)}
        return subprocess.run(
            shlex.split(line),
            cwd=ROOT,
            env=environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def do(self, command: Command) -> None:
        """Do what a page says, to what it is for."""
        line = command.text
        for name, value in PLACEHOLDERS.items() if command.in_text else ():
            line = re.sub(rf"(?<!\S){name}(?!\S)", value, line)
        if BY_ITSELF in line:
            made = self.run(f"{line} --dry-run=client --output=json")
            assert made.returncode == 0, made.stderr
            namespace = re.findall(r" -n (\S+)", line)
            line, stdin = f"kubectl create {' '.join(f'-n {n}' for n in namespace)} -f -", made.stdout
        else:
            stdin = ""
        done = self.run(line, stdin=stdin)
        if " exec " in line:  # that the stand-in has nothing to run is as far as it goes
            assert "nothing runs here" in done.stderr, done.stderr
        else:
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.fixture
def kubectl(tmp_path: Path) -> Iterator[Kubectl]:
    with cluster_of(tmp_path) as (cluster, config):
        yield Kubectl(cluster, config)


def test_everything_on_the_pages_is_done_in_its_order_and_everything_in_deploy_is_there_afterwards(
    kubectl: Kubectl,
) -> None:
    for command in ALL:
        kubectl.do(command)
    assert len(ALL) >= 10
    cluster = kubectl.cluster
    (kustomization,) = documents(ROOT / "deploy" / "kubernetes" / "kustomization.yaml")
    for _, manifest in MANIFESTS:
        if manifest["kind"] != "Kustomization":
            there = cluster.of_kind(manifest["kind"])[manifest["metadata"]["name"]]
            assert there["metadata"]["namespace"] == kustomization["namespace"]
    (image,) = kustomization["images"]
    deployments = cluster.of_kind("Deployment").values()
    used = {each["spec"]["template"]["spec"]["containers"][0]["image"] for each in deployments}
    assert used == {f"{image['newName']}:{image['newTag']}"}
    # What the pods mount is what the page says to make.
    assert cluster.of_kind("Secret")["surefoot"]["data"].keys() == mounted()
    ran = [path for verb, path in cluster.asked if path.partition("?")[0].endswith("/exec")]
    assert ran
    assert all("command=surefoot&command=jobs" in path for path in ran)
    evicted = {path.split("/")[-2] for verb, path in cluster.asked if verb == "POST" and path.endswith("/eviction")}
    assert {"surefoot-worker-0", "surefoot-worker-cpu-0", "surefoot-api-0"} <= evicted


def mounted() -> set[str]:
    """The keys of the secret that manifests and settings name."""
    text = "".join(file.read_text() for file in (ROOT / "deploy" / "kubernetes").glob("*.yaml"))
    return set(re.findall(r"/run/secrets/surefoot/([a-z-]+)", text))


def test_a_mistake_in_a_manifest_is_refused(kubectl: Kubectl) -> None:
    text = (ROOT / "deploy" / "kubernetes" / "worker.yaml").read_text()
    assert kubectl.run("kubectl apply -f -", stdin=text).returncode == 0
    done = kubectl.run("kubectl apply -f -", stdin=text.replace("terminationGracePeriodSeconds", "gracePeriodSeconds"))
    assert done.returncode == 1
    assert "gracePeriodSeconds" in done.stderr


@pytest.mark.parametrize(
    ("file", "line"),
    [
        (file.name, line)
        for file in sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
        for line in re.findall(r"kubectl [^`\n]*[^`\n.:]", file.read_text())
    ],
)
def test_what_a_comment_in_deploy_says_to_run_names_what_is_there(file: str, line: str, kubectl: Kubectl) -> None:
    verb = line.split()[1]
    told = kubectl.run(f"kubectl {verb} --help")
    assert told.returncode == 0, file
    for option in re.findall(r"--[a-z-]+", line):
        assert f"{option}=" in told.stdout or f"{option} " in told.stdout, file
    named = {f"{each['kind'].lower()}/{each['metadata']['name']}" for _, each in MANIFESTS if "metadata" in each}
    for word in re.findall(r"[a-z]+/surefoot[a-z-]*", line):
        assert word in named, file
