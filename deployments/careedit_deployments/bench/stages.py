"""The milliseconds of one edit, stage by stage: through the client, Serve's proxy, the ingress, the router and an expert replica.

The served stages come from the spans of a request (`telemetry`), which all processes of one machine take from the same clock.
"""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from careedit.bench.timing import turns
from careedit.editor import Editor
from careedit.files import png_bytes
from careedit.images import decode_image
from careedit.records import EditRequest, EditResult
from careedit_deployments.bench.spans import ReceivedSpan, Receiver
from careedit_deployments.state.clock import unix_time

SPANS = ("request", "read", "decode", "route", "edit", "record", "answer")
"""Spans of every edit over HTTP. The span `expert` comes from a replica only."""

COMPUTED = ("prepare", "denoise", "finish")
"""Stages that a trace reports, which an editor in one process has too."""

STAGES: Mapping[str, str] = {
    "client": "the client encodes the source and decodes the result",
    "way_in": "HTTP, Serve's proxy, and its call of the ingress",
    "read": "the ingress reads the form",
    "decode": "the ingress decodes the source",
    "route": "the router, and the call of it",
    "way_to_expert": "the call of the expert replica",
    "prepare": "the replica encodes prompt and source",
    "denoise": "the replica denoises",
    "finish": "the replica decodes the result",
    "replica": "the rest of the replica: threads, events",
    "way_from_expert": "the result reaches the ingress",
    "record": "the ingress stores the edit's record",
    "answer": "the ingress encodes the result",
    "ingress": "the rest of the ingress: limits, ids, checks",
    "way_out": "the answer through Serve's proxy and HTTP",
}
"""Name and description of each stage, in the order of an edit."""


class TracedEdit(Protocol):
    """Makes an edit, also as part of a trace: `Client.edit`."""

    def __call__(self, request: EditRequest, *, traceparent: str | None = None) -> EditResult:
        """The result; `traceparent` names the caller's span (W3C Trace Context), if there is one."""
        ...


@dataclass(frozen=True)
class Timed:
    """One edit over HTTP, as its client saw it."""

    begin: float
    """Unix time at which the client began, in seconds."""
    end: float
    """Unix time at which the client had the image, in seconds."""
    client: float
    """Seconds in which the client itself computed."""
    computed: Mapping[str, float]
    """Seconds of each stage that the trace of the edit reports."""


def stages(
    served: TracedEdit, receiver: Receiver, editor: Editor, requests: Sequence[EditRequest], done: Callable[[], None]
) -> dict[str, dict[str, float | None]]:
    """Median milliseconds of each stage of `STAGES`, served and in process; None for a stage that one process does not have.

    The two sides take turns. Raises what an edit raises, and `ServingError` if the spans of an edit do not arrive.
    """
    edits: dict[str, Timed] = {}
    local: list[dict[str, float]] = []
    for i, request in enumerate(requests):
        for side in turns(("served", "in_process"), i):
            if side == "served":
                trace = secrets.token_hex(16)
                edits[trace] = _timed(served, request, f"00-{trace}-{secrets.token_hex(8)}-01")
            else:
                seconds = editor.edit(request).trace.seconds
                local.append({name: seconds[name] for name in ("route", *COMPUTED)})
            done()
    remote = [split(timed, receiver.wait_for(*SPANS, trace=trace)) for trace, timed in edits.items()]
    return {
        name: {"served": _median_ms(remote, name), "in_process": _median_ms(local, name) if name in local[0] else None}
        for name in STAGES
    }


def split(edit: Timed, spans: Mapping[str, ReceivedSpan]) -> dict[str, float]:
    """Seconds of each stage of `STAGES` of one edit; their sum is the time that its client waited.

    Without the span `expert`, the edit was made in the process of the ingress, and the ways to and from it are 0.
    """
    request, made = spans["request"], spans["edit"]
    expert = spans.get("expert", made)
    inside = {name: spans[name].seconds for name in ("read", "decode", "route", "record", "answer")}
    computed = {name: edit.computed[name] for name in COMPUTED}
    return {
        "client": edit.client,
        # The client computes before it sends and after it has received; half of it is close enough for either side.
        "way_in": request.begin - edit.begin - edit.client / 2,
        **inside,
        **computed,
        "way_to_expert": expert.begin - made.begin,
        "replica": expert.seconds - sum(computed.values()),
        "way_from_expert": made.end - expert.end,
        "ingress": request.seconds - made.seconds - sum(inside.values()),
        "way_out": edit.end - request.end - edit.client / 2,
    }


def _timed(served: TracedEdit, request: EditRequest, traceparent: str) -> Timed:
    began = time.perf_counter()
    decode_image(png_bytes(request.image))  # what the client does before and after; it is measured alone
    client = time.perf_counter() - began
    begin = unix_time()
    result = served(request, traceparent=traceparent)
    return Timed(begin, unix_time(), client, result.trace.seconds)


def _median_ms(edits: Sequence[Mapping[str, float]], stage: str) -> float:
    return 1000 * statistics.median(edit[stage] for edit in edits)
