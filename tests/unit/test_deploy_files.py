"""The files in deploy/ load where they are meant to, and speak of nothing that is not there."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import promql_parser
import pytest
import yaml

from tests.unit.markdown import DOCS, tables

DEPLOY = DOCS.parent / "deploy"
# By the exporters' own words: tests/acceptance/test_metrics.py holds the page to them.
KNOWN = {row["metric"]: row["labels"] for rows in tables("metrics.md")[:2] for row in rows}
OF_PROMETHEUS = {"instance", "job", "le"}
OWN_OF_PROCESSES = {"process_resident_memory_bytes"}


def documents(file: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(file.read_text()) if each]


MANIFESTS = [(file.name, each) for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for each in documents(file)]
BUILT_IN = [(name, each) for name, each in MANIFESTS if each["kind"] not in ("Kustomization", "ScaledObject")]
RULES = [rule for group in documents(DEPLOY / "prometheus" / "rules.yml")[0]["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def shown(pair: Any) -> str | None:
    return f"{pair['kind']} {pair['metadata']['name']}" if isinstance(pair, dict) and "kind" in pair else None


def of_kind(*kinds: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for _, each in MANIFESTS if each["kind"] in kinds}


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, each in of_kind("Deployment", "Job").items():
        yield name, each["spec"]["template"]


def queries() -> Iterator[tuple[str, str]]:
    yield from ((rule["alert"], rule["expr"]) for rule in RULES)
    for panel in PANELS:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])
    for trigger in of_kind("ScaledObject")["surefoot-worker"]["spec"]["triggers"]:
        yield f"scale by {trigger['metadata']['threshold']}", trigger["metadata"]["query"]


def selectors(query: str) -> list[Any]:
    """Every selector of a metric in a query."""
    # Grafana puts an interval in for its own variable.
    found = []

    def visit(node: Any) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        return True

    promql_parser.walk(promql_parser.parse(query.replace("$__rate_interval", "5m")), visit)
    return found


# ---- Kubernetes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("file", "manifest"), BUILT_IN, ids=shown)
def test_a_manifest_is_valid_by_kubernetes_own_schema_with_no_field_that_it_does_not_know(
    file: str, manifest: dict[str, Any]
) -> None:
    assert kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True), file


def scaled_objects() -> list[dict[str, Any]]:
    return list(of_kind("ScaledObject").values())


def keda_schema(name: str) -> Any:
    """A schema of KEDA's; each says where it is from."""
    return json.loads((Path(__file__).parent / "schemas" / f"keda-{name}.json").read_text())


@pytest.mark.parametrize("manifest", scaled_objects(), ids=shown)
def test_what_keda_scales_by_is_valid_by_its_definition_with_no_field_that_it_does_not_know(
    manifest: dict[str, Any],
) -> None:
    jsonschema.validate(manifest, keda_schema("scaledobject"))
    for trigger in manifest["spec"]["triggers"]:
        assert trigger["type"] == "prometheus"
        jsonschema.validate(trigger["metadata"], keda_schema("prometheus-trigger"))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.maxReplicas", 20),
        ("spec.minReplicaCount", "2"),
        ("spec.scaleTargetRef.deploymentName", "surefoot-worker"),
        ("spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown.stabilizationWindowSeconds", 3_601),
        ("spec.triggers.0.metadata.threshold", 150),
        ("spec.triggers.0.metadata.treshold", "150"),
        ("spec.triggers.0.metadata.serverAddress", "prometheus:9090"),
    ],
)
def test_a_mistake_in_what_keda_scales_by_is_found(path: str, value: Any) -> None:
    (manifest,) = (copy.deepcopy(each) for each in scaled_objects())
    *steps, last = path.split(".")
    place: Any = manifest
    for step in steps:
        place = place[int(step) if step.isdigit() else step]
    place[last] = value
    with pytest.raises(jsonschema.ValidationError):
        test_what_keda_scales_by_is_valid_by_its_definition_with_no_field_that_it_does_not_know(manifest)


def test_every_manifest_is_applied() -> None:
    (kustomization,) = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    assert set(kustomization["resources"]) == {name for name, _ in MANIFESTS} - {"kustomization.yaml"}


def test_pods_run_as_nobody_change_nothing_of_themselves_and_have_limits() -> None:
    for name, pod in pods():
        assert pod["spec"]["securityContext"]["runAsNonRoot"], name
        assert not pod["spec"]["automountServiceAccountToken"], name
        for container in pod["spec"]["containers"]:
            own = container["securityContext"]
            assert (own["readOnlyRootFilesystem"], own["allowPrivilegeEscalation"]) == (True, False), name
            assert own["capabilities"] == {"drop": ["ALL"]}, name
            assert container["resources"]["limits"]["memory"], name


def test_everything_that_goes_on_has_probes_on_a_port_that_it_has() -> None:
    for name, deployment in of_kind("Deployment").items():
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        ports = {port["name"] for port in container["ports"]}
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"]["port"] in ports, name


def test_budgets_services_and_scalers_select_what_there_is() -> None:
    labels = {name: pod["metadata"]["labels"] for name, pod in pods()}
    for name, budget in of_kind("PodDisruptionBudget").items():
        assert budget["spec"]["selector"]["matchLabels"].items() <= labels[name].items()
    for name, service in of_kind("Service").items():
        assert service["spec"]["selector"].items() <= labels[name].items()
    for name, scaler in of_kind("ScaledObject", "HorizontalPodAutoscaler").items():
        assert scaler["spec"]["scaleTargetRef"]["name"] == name
        assert name in labels
    workers = {name for name in labels if "worker" in name}
    assert workers <= of_kind("PodDisruptionBudget").keys()


def test_no_secret_is_in_a_manifest_and_flower_is_not_told_where_the_ledger_is() -> None:
    assert not of_kind("Secret")
    flower = of_kind("Deployment")["surefoot-flower"]["spec"]["template"]["spec"]
    assert "database" not in json.dumps(flower)


def test_a_worker_that_stops_has_longer_than_the_longest_action() -> None:
    from tasks import load  # noqa: PLC0415

    longest = max(spec.policy.timeout for spec in load(()).values())
    compose = documents(DEPLOY.parent / "docker-compose.yml")[0]
    assert int(compose["services"]["worker"]["stop_grace_period"].rstrip("s")) > longest
    for name, pod in pods():
        if "worker" in name:
            assert pod["spec"]["terminationGracePeriodSeconds"] > longest


# ---- Prometheus and Grafana ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "query"), list(queries()))
def test_a_query_parses_and_asks_for_metrics_and_labels_that_are_exported(name: str, query: str) -> None:
    found = selectors(query)
    assert found, name
    for selector in found:
        if selector.name in OWN_OF_PROCESSES:
            continue
        metric = re.sub(r"_(bucket|sum|count)$", "", selector.name)
        metric = metric if metric in KNOWN else selector.name
        assert metric in KNOWN, f"{name}: {selector.name}"
        known = set(KNOWN[metric].split(", ")) | OF_PROMETHEUS
        assert {matcher.name for matcher in selector.matchers.matchers} <= known, name
    grouped = {label.strip() for words in re.findall(r"by \(([^)]*)\)", query) for label in words.split(",")}
    every = {label for labels in KNOWN.values() for label in labels.split(", ")} | OF_PROMETHEUS
    assert grouped <= every, name


def test_every_alert_says_how_urgent_it_is_and_where_what_to_do_about_it_stands() -> None:
    headings = {
        "#" + re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in (DOCS / "operating.md").read_text().splitlines()
        if line.startswith("#")
    }
    for rule in RULES:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule["alert"]
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, f"#{anchor}" in headings) == ("docs/operating.md", True), rule["alert"]


def test_promtool_takes_the_rules_and_the_configuration() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed here (Debian: prometheus); the queries are parsed all the same")
    for words in (["rules", "rules.yml"], ["config", "--syntax-only", "prometheus.yml"]):
        command = [promtool, "check", *words]
        folder = DEPLOY / "prometheus"
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_s_panels_have_titles_and_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not taken & cells, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_everything_that_is_exported_is_on_the_dashboard_or_in_a_rule() -> None:
    asked = {re.sub(r"_(bucket|sum|count)$", "", each.name) for _, query in queries() for each in selectors(query)}
    assert KNOWN.keys() <= asked
