"""A real Prometheus over what tests start, by deploy/'s own configuration and rules. Debian's; where it is not there,
what needs it is skipped and says so.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.api_process import Api
from tests.brokers import HOST, Program, free_port
from tests.houses import ROOT, until

FILES = ROOT / "deploy" / "prometheus"
START_SECONDS = 30.0
EVERY = "500ms"


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One server."""

    client: httpx.Client

    def ask(self, query: str) -> list[float]:
        """The values that a query has now, as KEDA and Grafana ask for them; fails where Prometheus refuses it."""
        answer = self.client.get("/api/v1/query", params={"query": query})
        assert answer.status_code == 200, f"{query}: {answer.text}"
        told = answer.json()["data"]
        samples = [told["result"]] if told["resultType"] == "scalar" else [each["value"] for each in told["result"]]
        return [float(value) for _, value in samples]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, and how that went."""
        found: list[dict[str, Any]] = self.client.get("/api/v1/targets").json()["data"]["activeTargets"]
        return found

    def rules(self) -> dict[str, dict[str, Any]]:
        """Its rules by name, with how their evaluation went and what they tell."""
        groups = self.client.get("/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


@contextmanager
def prometheus_of(folder: Path, *, api: Api, key: str, workers: Sequence[str] = ()) -> Iterator[Prometheus]:
    """Run one that scrapes an API, by a key of the scope admin, and workers, by the URLs of their exporters."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("Prometheus is not installed here (Debian: prometheus)")
    port, home = free_port(), folder / "prometheus"
    home.mkdir()
    (home / "key").write_text(key)
    (home / "prometheus.yml").write_text(yaml.safe_dump(_configuration(api, home / "key", workers)))
    options = [f"--config.file={home}/prometheus.yml", f"--storage.tsdb.path={home}/data"]
    server = Program([program, *options, f"--web.listen-address={HOST}:{port}"], home / "log")
    server.start()
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}", timeout=20) as client:
            until(lambda: _is_ready(client), seconds=START_SECONDS)
            yield Prometheus(client)
    finally:
        server.end()


def _configuration(api: Api, key: Path, workers: Sequence[str]) -> dict[str, Any]:
    """Return the configuration in deploy/ with other addresses, and without patience."""
    found: dict[str, Any] = yaml.safe_load((FILES / "prometheus.yml").read_text())
    found["global"] = {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY}
    found["rule_files"] = [str(FILES / name) for name in found["rule_files"]]
    of_workers, of_api = found["scrape_configs"]
    of_workers.pop("dns_sd_configs")
    of_workers["static_configs"] = [{"targets": [url.removeprefix("http://") for url in workers]}]
    of_api["static_configs"] = [{"targets": [api.url.removeprefix("http://")]}]
    of_api["authorization"]["credentials_file"] = str(key)
    return found


def _is_ready(client: httpx.Client) -> bool:
    with suppress(httpx.TransportError):
        return client.get("/-/ready").status_code == 200
    return False
