"""A stand-in for a Kubernetes API server: enough for a real kubectl to create, apply, wait, look and drain.

It keeps what it is sent if that is valid by Kubernetes' own schemas, or KEDA's, and refuses it with the reason where it
is not. Nothing runs: a job is complete, and a deployment rolled out, once it is there. What a real server has beside
that is left out.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import kubernetes_validate
import yaml

from tests.unit.test_deploy_files import keda_schema

HOST = "127.0.0.1"
NOW = "2026-01-01T00:00:00Z"
# By group and version: kinds, what they are called in a path, and whether they are in a namespace.
KINDS: Mapping[str, Mapping[str, tuple[str, bool]]] = {
    "v1": {
        "Namespace": ("namespaces", False),
        "Node": ("nodes", False),
        "Pod": ("pods", True),
        "Secret": ("secrets", True),
        "ConfigMap": ("configmaps", True),
        "Service": ("services", True),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
    },
    "apps/v1": {"Deployment": ("deployments", True), "ReplicaSet": ("replicasets", True)},
    "batch/v1": {"Job": ("jobs", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "autoscaling/v2": {"HorizontalPodAutoscaler": ("horizontalpodautoscalers", True)},
    "keda.sh/v1alpha1": {"ScaledObject": ("scaledobjects", True)},
}
# Beside what a path names: what kubectl may ask of it.
VERBS = ["create", "delete", "get", "list", "patch", "watch", "update"]
NODE = "node-1"
WATCH_SECONDS = 30.0
EVICTION = {"name": "pods/eviction", "namespaced": True, "group": "policy", "version": "v1", "kind": "Eviction"}


@dataclass(slots=True)
class Cluster:
    """What is there, by its path, and what was asked for. It has one node, on which a pod of each deployment is."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    versions: int = 0
    closing: threading.Event = field(default_factory=threading.Event)

    def of_kind(self, kind: str) -> dict[str, dict[str, Any]]:
        """What there is of a kind, by name."""
        return {each["metadata"]["name"]: each for each in self.objects.values() if each["kind"] == kind}

    def put(self, path: str, sent: dict[str, Any]) -> dict[str, Any]:
        """Keep what is valid, as if all that it asks for had come about."""
        check(sent)
        self.versions += 1
        name = path.rsplit("/", 1)[1]
        known = {"name": name, "uid": f"uid-{name}", "resourceVersion": f"{self.versions}", "generation": 1}
        parts = path.split("/")
        if "namespaces" in parts[:-2]:
            known["namespace"] = parts[parts.index("namespaces") + 1]
        kept = sent | {"metadata": {"creationTimestamp": NOW} | sent["metadata"] | known, "status": _status(sent)}
        self.objects[path] = kept
        if kept["kind"] == "Deployment":
            pod = _pod_of(kept)
            self.put(f"/api/v1/namespaces/{known['namespace']}/pods/{pod['metadata']['name']}", pod)
        return kept


def check(sent: dict[str, Any]) -> None:
    """Hold it to its schema.

    Raises:
        ValueError: Saying what is wrong with it.
    """
    try:
        if sent["apiVersion"].startswith("keda.sh/"):
            jsonschema.validate(sent, keda_schema("scaledobject"))
        else:
            kubernetes_validate.validate(sent, kubernetes_validate.latest_version(), strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        raise ValueError(f"{sent['kind']}: {error}") from error


def _status(sent: Mapping[str, Any]) -> dict[str, Any]:
    if sent["kind"] == "Job":
        return {"conditions": [{"type": "Complete", "status": "True"}], "succeeded": 1}
    if sent["kind"] == "Deployment":
        count = sent["spec"].get("replicas", 1)
        names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
        return {"observedGeneration": 1} | dict.fromkeys(names, count)
    if sent["kind"] == "Pod":
        return {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {}


def _pod_of(deployment: Mapping[str, Any]) -> dict[str, Any]:
    name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name, "uid": f"uid-{name}", "controller": True}
    about = template["metadata"] | {"name": f"{name}-0", "ownerReferences": [owner]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": template["spec"] | {"nodeName": NODE}}


@contextmanager
def cluster_of(folder: Path) -> Iterator[tuple[Cluster, Path]]:
    """Serve an empty cluster; return it with the kubeconfig by which kubectl finds it."""
    cluster = Cluster()
    cluster.put(f"/api/v1/nodes/{NODE}", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    server = ThreadingHTTPServer((HOST, 0), type("Handler", (_Handler,), {"cluster": cluster}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "stand-in",
        "clusters": [{"name": "stand-in", "cluster": {"server": f"http://{HOST}:{server.server_address[1]}"}}],
        "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": "stand-in"}}],
        "users": [{"name": "stand-in", "user": {}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    try:
        yield cluster, folder / "kubeconfig"
    finally:
        cluster.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def do_GET(self) -> None:
        path, query = self._asked()
        known = _discovery(path)
        if known is not None:
            self._answer(known)
        elif path.endswith("/exec"):
            self._refuse(HTTPStatus.FORBIDDEN, "nothing runs here", "Forbidden")
        elif path in self.cluster.objects:
            self._answer(self.cluster.objects[path])
        elif (listed := _list_at(path)) is None:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {path}", "NotFound")
        elif "watch" in query:
            self._watch()
        else:
            items = [
                each for place, each in self.cluster.objects.items() if _is_in(place, path) and _suits(each, query)
            ]
            about = {"resourceVersion": f"{self.cluster.versions}"}
            self._answer({"kind": f"{listed[1]}List", "apiVersion": listed[0], "metadata": about, "items": items})

    def do_POST(self) -> None:
        path, _ = self._asked()
        if path.endswith("/exec"):
            self._refuse(HTTPStatus.FORBIDDEN, "nothing runs here", "Forbidden")
        elif path.endswith("/eviction"):
            self._read()
            self.cluster.objects.pop(path.removesuffix("/eviction"))
            self._answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})
        else:
            sent = self._sent()
            self._keep(f"{path}/{sent['metadata']['name']}", sent, HTTPStatus.CREATED)

    def do_PATCH(self) -> None:
        path, _ = self._asked()
        there, patch = self.cluster.objects.get(path), self._sent()
        if there is None:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {path}", "NotFound")
            return
        plain = {name: value for name, value in there.items() if name != "status"}
        self._keep(path, _merged(plain, patch), HTTPStatus.OK)

    def do_DELETE(self) -> None:
        path, _ = self._asked()
        self._read()
        gone = self.cluster.objects.pop(path, None)
        if gone is None:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {path}", "NotFound")
        else:
            self._answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})

    def _asked(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        self.cluster.asked.append((self.command, self.path))
        return parts.path, parse_qs(parts.query)

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _sent(self) -> dict[str, Any]:
        sent: dict[str, Any] = json.loads(self._read())
        return sent

    def _keep(self, path: str, sent: dict[str, Any], status: HTTPStatus) -> None:
        try:
            self._answer(self.cluster.put(path, sent), status)
        except ValueError as error:
            self._refuse(HTTPStatus.UNPROCESSABLE_ENTITY, str(error), "Invalid")

    def _watch(self) -> None:
        """Nothing changes by itself here: tell nothing, for as long as somebody may listen."""
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.flush()
        self.cluster.closing.wait(WATCH_SECONDS)

    def _answer(self, what: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(what).encode())

    def _refuse(self, status: HTTPStatus, why: str, reason: str) -> None:
        told = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": why}
        self._answer(told | {"reason": reason, "code": int(status)}, status)

    def _send(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


def _discovery(path: str) -> dict[str, Any] | None:
    """Return what there is to ask for, as kubectl asks before anything else."""
    groups = [_group(each) for each in KINDS if "/" in each]
    openapis = {_base(each)[1:]: {"serverRelativeURL": f"/openapi/v3{_base(each)}"} for each in KINDS}
    known: dict[str, dict[str, Any]] = {
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
        "/version": {"major": "1", "minor": "32", "gitVersion": "v1.32.0"},
        "/openapi/v3": {"paths": openapis},
    }
    for version in KINDS:
        resources = _resources(version)
        known[_base(version)] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        known[f"/openapi/v3{_base(version)}"] = _openapi(version)
    return known.get(path)


def _base(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _group(version: str) -> dict[str, Any]:
    named = {"groupVersion": version, "version": version.split("/")[1]}
    return {"name": version.split("/", maxsplit=1)[0], "versions": [named], "preferredVersion": named}


def _resources(version: str) -> list[dict[str, Any]]:
    found = [
        {"name": plural, "singularName": kind.lower(), "namespaced": inside, "kind": kind, "verbs": VERBS}
        for kind, (plural, inside) in KINDS[version].items()
    ]
    return [*found, EVICTION | {"singularName": "", "verbs": ["create"]}] if version == "v1" else found


def _openapi(version: str) -> dict[str, Any]:
    """Return that the server itself looks for fields that it does not know, which is all that kubectl wants of it."""
    group, _, number = version.rpartition("/")
    paths = {}
    for kind, (plural, inside) in KINDS[version].items():
        of = [{"group": group, "version": number, "kind": kind}]
        place = f"{_base(version)}/{'namespaces/{namespace}/' if inside else ''}{plural}/{{name}}"
        looks = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
        paths[place] = {
            "patch": {"parameters": [looks], "x-kubernetes-group-version-kind": of[0], "responses": {}},
        }
    return {"openapi": "3.0.0", "info": {"title": "a stand-in", "version": "1"}, "paths": paths}


def _list_at(path: str) -> tuple[str, str] | None:
    """Return the version and the kind of what a path lists; None where it lists nothing."""
    for version, kinds in KINDS.items():
        for kind, (plural, _) in kinds.items():
            if path.startswith(f"{_base(version)}/") and path.endswith(f"/{plural}"):
                return version, kind
    return None


def _is_in(place: str, path: str) -> bool:
    """Whether an object's path is in what a path lists: of one namespace, or of all."""
    version, _, plural = path.rpartition("/")
    return place.rsplit("/", 1)[0] == path or (
        "/namespaces/" not in path and place.startswith(f"{version}/namespaces/") and place.split("/")[-2] == plural
    )


def _suits(one: Mapping[str, Any], query: Mapping[str, list[str]]) -> bool:
    about = one["metadata"]
    facts = {"metadata.name": about["name"], "metadata.namespace": about.get("namespace")}
    facts["spec.nodeName"] = one.get("spec", {}).get("nodeName")
    of_fields, of_labels = (
        [pair.partition("=") for pair in query.get(name, [""])[0].split(",") if pair]
        for name in ("fieldSelector", "labelSelector")
    )
    labels = about.get("labels", {})
    return all(facts[name] == value for name, _, value in of_fields) and all(
        labels.get(name) == value for name, _, value in of_labels
    )


def _merged(there: Any, patch: Any) -> Any:
    """Return what a merge patch makes of it (RFC 7396)."""
    if not isinstance(there, dict) or not isinstance(patch, dict):
        return patch
    merged = {name: _merged(there.get(name), value) for name, value in patch.items() if value is not None}
    return {name: value for name, value in there.items() if name not in patch} | merged
