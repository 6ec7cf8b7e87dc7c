"""`Chart`: the values of the Helm chart, and their JSON Schema, which Helm checks before it renders."""

from __future__ import annotations

from typing import Any, Literal

from pydantic.json_schema import models_json_schema

from careedit.record import Record
from careedit_deployments.config import ServeConfig
from careedit_deployments.kubernetes.cluster import Cluster


class Edge(Record):
    """Entry for callers: a Gateway that ends TLS, and its route."""

    hostname: str
    """Host name under which callers reach the service. Its certificate is in the secret `careedit-tls`."""
    gateway_class: str = "istio"
    """Gateway API class of the entry. Default: istio."""


class Namespaces(Record):
    """Namespaces whose pods the network policies let in or out."""

    operator: str = "kuberay"
    """Namespace of the KubeRay operator. Default: kuberay."""
    monitoring: str = "monitoring"
    """Namespace of Prometheus. Default: monitoring."""
    gateway: str = "istio-system"
    """Namespace of the gateway's control plane. Default: istio-system."""


class Chart(Cluster):
    """Values of the chart: a cluster, and what an overlay chooses as components and patches."""

    stores: Literal["managed", "dev"] = "managed"
    """Where the stores are. "managed": outside the cluster. "dev": in the cluster, for tests. Default: managed."""
    monitoring: bool = True
    """Whether there are a PodMonitor, alert rules and dashboards. Default: yes."""
    edge: Edge | None = Edge(hostname="careedit.example.com")
    """Entry for callers. None: no entry; `kubectl port-forward` gives access. Default: careedit.example.com."""
    ray_tls: bool = False
    """Whether the pods of a Ray cluster use TLS among themselves. Default: no."""
    storage_class: str | None = None
    """Storage class of all volumes. None: the default of the cluster."""
    secret_store: str = "careedit"
    """ClusterSecretStore from which External Secrets takes the secrets. Default: careedit."""
    internet: bool = True
    """Whether webhooks and the download of weights may leave the cluster. Default: yes."""
    private_networks: tuple[str, ...] = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    """Networks of the Kubernetes API; without `internet`, weights come from them too. Default: all private ones."""
    store_networks: tuple[str, ...] = ("10.0.0.0/8",)
    """Networks of the managed stores. Default: 10.0.0.0/8."""
    hub_endpoint: str | None = None
    """Mirror of the models' hub. None: the hub itself."""
    namespaces: Namespaces = Namespaces()
    """Namespaces of operator, Prometheus and gateway."""
    namespace: bool = False
    """Whether the chart makes its own namespace, for `helm template` only. Default: no."""


def values_schema() -> dict[str, Any]:
    """The JSON Schema of the chart's values, `settings` included.

    `settings` has the fields of `ServeConfig`, each of them optional, because they change those of a file.
    """
    places, schema = models_json_schema([(Chart, "validation"), (ServeConfig, "validation")])
    definitions: dict[str, Any] = schema["$defs"]
    settings = places[(ServeConfig, "validation")]
    for name in _reached(settings, definitions):
        definitions[name].pop("required", None)
    chart = definitions.pop(places[(Chart, "validation")]["$ref"].rsplit("/", 1)[1])
    chart["properties"]["settings"] = settings | {"description": Cluster.model_fields["settings"].description}
    chart["properties"]["groups"]["minProperties"] = 1
    named: dict[str, Any] = _without_titles(
        {"$schema": "https://json-schema.org/draft/2020-12/schema", **chart, "$defs": definitions}
    )
    return named


def _reached(schema: Any, definitions: dict[str, Any]) -> set[str]:
    """Names of the definitions that a schema refers to, directly or not."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            name = str(one.get("$ref", "")).rsplit("/", 1)[-1]
            if name and name not in found:
                found.add(name)
                waiting.append(definitions[name])
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)
    return found


def _without_titles(schema: Any) -> Any:
    """The schema without pydantic's titles, which repeat the names."""
    if isinstance(schema, list):
        return [_without_titles(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _without_titles(one) for key, one in schema.items() if not (key == "title" and isinstance(one, str))}
