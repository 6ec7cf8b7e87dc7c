"""What an expert replica is and edits with: its settings and its set. No torch."""

from __future__ import annotations

from careedit.families import Quantisation
from careedit.record import Record
from careedit_deployments.config import Dtype


class ExpertSettings(Record):
    """Settings of an expert replica that do not change while it runs."""

    arm: str
    """Name of the arm that the replica edits for."""
    expert: str | None
    """The expert whose weights are merged into the base; None: the shared pool, which edits with every expert of the set."""
    batch: int
    """Maximum of rows in one batch (transformer evaluations per step)."""
    threads: int | None
    """Torch's threads on a CPU; None: torch's own choice."""
    device: str | None = None
    """Device, such as "cuda" or "cpu"; None: a GPU if there is one."""
    dtype: Dtype | None = None
    """Number format of the weights; None: float32 on a CPU, bfloat16 on a GPU."""
    encoder: str | None = None
    """Name of the deployment that encodes prompts; None: the replica has text encoders of its own."""
    quantisation: Quantisation | None = None
    """Number format of the transformer's weights in fewer bits; None: as `dtype`."""
    compiled: bool = False
    """Whether the transformer's repeated blocks are compiled; a replica is ready after the compilation."""
    workers: int
    """Maximum of edits in flight; more of them wait."""
    check_seconds: float
    """Seconds that a health check waits for a step before it fails."""


class SetChoice(Record):
    """The set that a replica edits with; it may change while the replica runs."""

    expert_set: str
    """Name, folder or address, as `load_expert_set` takes it."""
    sha256: str
    """Hash of the set that was deployed, so that a changed folder is noticed."""
