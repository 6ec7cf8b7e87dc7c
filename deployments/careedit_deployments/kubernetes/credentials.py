"""Secrets of the stores that run inside the cluster: drawn anew each time, printed, never written to a file."""

from __future__ import annotations

import secrets

import yaml

KEYS = {
    "careedit-stores": ("PGPASSWORD", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "CAREEDIT_WEBHOOK_SECRET"),
    "careedit-redis": ("password",),
}
"""Keys per secret; managed stores give the same ones through `k8s/components/managed-stores`."""


def dev_secrets(namespace: str = "careedit") -> str:
    """Manifests of the namespace's secrets, as YAML. Not to be run again while the stores keep their disks."""
    documents = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "Opaque",
            "stringData": {key: secrets.token_hex(24) for key in keys},
        }
        for name, keys in KEYS.items()
    ]
    return yaml.safe_dump_all(documents, sort_keys=False)
