"""Generate Kubernetes manifests from `deployments/config`, check that they are up to date, and download models."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Annotated

import typer
import yaml

from careedit.cli.output import JsonOption, emit, emit_json, note
from careedit.files import write_atomic
from careedit_deployments.kubernetes.render import render

KEYS = {
    "careedit-stores": (
        "PGPASSWORD",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "CAREEDIT_WEBHOOK_SECRET",
        "CAREEDIT_CREDENTIALS_CERTIFICATE",
        "CAREEDIT_CREDENTIALS_KEY",
    ),
    "careedit-redis": ("password",),
}
"""Keys of each secret. Managed stores provide the same keys through `k8s/components/managed-stores`."""

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def k8s() -> None:
    """Generate Kubernetes manifests from `deployments/config`, check that they are up to date, and download models."""


@app.command("render")
def render_command(
    root: Annotated[
        Path, typer.Option("--root", metavar="FOLDER", help="Folder with k8s/ and deployments/config/.")
    ] = Path(),
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail (exit code 1) if a file is out of date.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write RayServices, nightly jobs, alert rules and dashboards. Only files that differ are written."""
    files = render(root)
    stale = [path for path, text in files.items() if not _holds(path, text)]
    for path in [] if check else stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, files[path])
    if as_json:
        emit_json({"version": 1, "files": len(files), "changed": [str(path) for path in stale], "written": not check})
    else:
        for path in stale:
            emit(str(path))
        note(f"{len(stale)} of {len(files)} files {'are out of date' if check else 'were written'}.")
    if check and stale:
        raise typer.Exit(1)


@app.command("pull")
def pull_command(
    config: Annotated[str, typer.Option("--config", help="A serve configuration: a file or a name.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Name the models and download nothing.")] = False,
) -> None:
    """Download the models that a configuration names, at their commits: the bases of its expert sets, and its judge."""
    from careedit_deployments.cli.serve import named_config
    from careedit_deployments.kubernetes.pull import models_of, pull

    for model in models_of(named_config(config)):
        where = "" if dry_run else f" is in {pull(model)}"
        emit(f"{model.hub_id} at {model.revision}{where}")


@app.command("secrets")
def secrets_command() -> None:
    """Print random secrets for the stores inside the cluster (dev). Pipe them into `kubectl apply -f -`."""
    emit(dev_secrets().rstrip("\n"))


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_text("utf-8") == text
    except (OSError, UnicodeDecodeError):
        return False


def dev_secrets(namespace: str = "careedit") -> str:
    """Random secrets of the namespace as YAML; they are not stored. Do not apply new ones while the stores keep their disks.

    Results are signed by a private authority, whose certificate is the last one of the chain.
    """
    from careedit.provenance.authority import make_authority
    from careedit.provenance.certificates import CERTIFICATE_FILE, KEY_FILE

    files = make_authority()
    signing = {
        "CAREEDIT_CREDENTIALS_CERTIFICATE": files[CERTIFICATE_FILE].decode(),
        "CAREEDIT_CREDENTIALS_KEY": files[KEY_FILE].decode(),
    }
    documents = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "type": "Opaque",
            "stringData": {key: signing.get(key) or secrets.token_hex(24) for key in keys},
        }
        for name, keys in KEYS.items()
    ]
    return yaml.safe_dump_all(documents, sort_keys=False)
