"""What the store keeps of batches: uploaded files, batches, and the lines of their input. See also `records`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from careedit.record import Record
from careedit_deployments.state.records import ANONYMOUS, Bytes, Id, Width

BatchEnd = Literal["completed", "failed", "expired", "cancelled"]
BATCH_ENDS: tuple[BatchEnd, ...] = get_args(BatchEnd)
"""Final states of a batch."""
BatchStatus = Literal["validating", "in_progress", "finalizing", "cancelling"] | BatchEnd


class FileRecord(Record):
    """A file that a client uploaded, or a list of results that is composed of a batch's jobs when it is read."""

    id: Id
    """Id of the file, which sorts by age."""
    owner: Id = ANONYMOUS
    """Id of the tenant that owns the file. Other tenants cannot see it."""
    name: str
    """Name of the file, as the client or the server chose it."""
    purpose: Literal["batch", "batch_output"]
    """"batch": the input of a batch. "batch_output": results or errors of a batch."""
    bytes: Bytes
    """Size of the file when it was uploaded, or when the batch ended."""
    key: str | None = None
    """Blob key of the content. None: the content is composed of the jobs of `batch`."""
    batch: Id | None = None
    """Id of the batch whose results the file lists. None for an input."""
    errors: bool = False
    """Whether the file lists the lines of the batch that failed. Default: those that are completed."""
    users: tuple[str, ...] = ()
    """Users whom the lines of an input name, as in `EditRecord`."""
    created: float
    """Time at which the file was made."""
    expires: float
    """Time at which the file is deleted."""


class BatchRecord(Record):
    """Many edits of one input file. Each line becomes a job."""

    id: Id
    """Id of the batch, which sorts by age."""
    owner: Id = ANONYMOUS
    """Id of the tenant that made the batch. Other tenants cannot see it."""
    key: Id | None = None
    """Id of the API key that made the batch, whose revocation ends its jobs. None: it was made without a key."""
    clear_names: bool = False
    """Whether users' names are stored in clear, as the tenant had it when it made the batch."""
    input_file: Id
    """Id of the input file."""
    metadata: Mapping[str, str] | None = None
    """What the client attached to the batch."""
    status: Annotated[BatchStatus, Width(16)] = "validating"
    """State of the batch. Four states are final (`BATCH_ENDS`)."""
    errors: tuple[Mapping[str, Any], ...] = ()
    """Code, message, line and param of each error of the input file for which the batch failed."""
    total: int = 0
    """Number of lines of the input file; 0 until it was read."""
    completed: int = 0
    """Number of lines that are completed; counted when the batch ends."""
    failed: int = 0
    """Number of lines that failed; counted when the batch ends."""
    output_file: Id | None = None
    """Id of the file with the results. None: no line is completed, or the batch has not ended."""
    error_file: Id | None = None
    """Id of the file with the errors. None: no line failed, or the batch has not ended."""
    created: float
    """Time at which the batch was accepted."""
    begun: float | None = None
    """Time at which its first line became a job. None: the input was not read yet."""
    finalizing: float | None = None
    """Time at which its last job had ended."""
    cancelling: float | None = None
    """Time at which the owner cancelled the batch. None: it was not cancelled."""
    ended: float | None = None
    """Time at which the batch reached a final state."""
    deadline: float
    """Time at which lines that have not ended are cancelled."""
    expires: float
    """Time at which the batch, its results and its jobs are deleted."""
    worker: Annotated[str, Width(128)] | None = None
    """Name of the worker that runs the batch, or ran it last."""
    lease_until: float = 0.0
    """Time at which the worker's lease ends unless it is renewed."""


class BatchLine(Record):
    """One line of the input of a batch."""

    batch: Id
    """Id of the batch that the line belongs to."""
    number: int
    """Number of the line in the input file; the first one has 1."""
    custom_id: str
    """Name that the client gave to the line."""
    user: str | None = None
    """User whom the line names, as in `EditRecord`."""
    job: Id | None = None
    """Id of the job that makes the edit. None: the line is waiting, or was refused."""
    error: Mapping[str, Any] | None = None
    """Why the line became no job: the "response" of a refusal, or an "error"."""
    done: bool = False
    """Whether the line is listed among the results; decided when the batch ends."""
