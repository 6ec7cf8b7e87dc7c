"""One run of `careedit eval claims`: measure what the folder lacks, decide, and gather the document."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter

from careedit.editing.base_model import use_threads
from careedit.files import json_digest, write_atomic
from careedit_tiny.evaluation.claims.claim import Claim, Finding, NotMeasuredError, Verdict, decide
from careedit_tiny.evaluation.claims.setting import Setting
from careedit_tiny.evaluation.common import run_facts
from careedit_tiny.evaluation.quality.outcomes import VERSION as OUTCOME_VERSION

VERSION = 1
"""The version of the document's layout."""
Report = Callable[[Claim, Verdict | None], None]
"""Called with a claim when its measurement begins (no verdict) and when it is decided."""
_FINDINGS = TypeAdapter(Finding)


def measure_claims(
    claims: Sequence[Claim],
    setting: Setting,
    *,
    threads: int | None = None,
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """Measure the claims and return the document. Findings of an earlier run with equal settings are read from the folder.

    Raises `InputError` and `ExpertError`; a claim that cannot be measured is a verdict, with its reason.
    """
    started = time.perf_counter()
    with use_threads(threads), torch.no_grad():
        rows = [_row(claim, setting, report) for claim in claims]
        subject = setting.subject
        facts = run_facts(
            subject.editor,
            time.perf_counter() - started,
            experts=len(subject.experts),
            unified=subject.unified is not None,
            n=setting.n,
            seed=setting.seed,
            steps=subject.steps,
            judge=None if setting.judge is None else setting.judge.identity.model,
            minutes_per_training_claim=setting.minutes if any(claim.trains for claim in claims) else None,
        )
    return {"version": VERSION, "claims": rows, "environment": facts}


def _row(claim: Claim, setting: Setting, report: Report) -> dict[str, Any]:
    report(claim, None)
    stated = {
        name: getattr(claim, name) for name in ("id", "title", "statement", "source", "stated", "method", "trains")
    }
    stated["decided_by"] = [one.figure for one in claim.conditions]
    finding: Finding | None = None
    try:
        finding = _finding(claim, setting)
        verdict = decide(claim.conditions, finding)
    except NotMeasuredError as error:
        verdict = Verdict("not measured", str(error))
    report(claim, verdict)
    found = None if finding is None else _FINDINGS.dump_python(finding, mode="json")
    return {**stated, "verdict": verdict.outcome, "reason": verdict.reason, "finding": found}


def _finding(claim: Claim, setting: Setting) -> Finding:
    path = _path(claim, setting)
    if path.exists():
        return _FINDINGS.validate_json(path.read_bytes())
    finding = claim.measure(setting)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _FINDINGS.dump_json(finding, indent=1))
    return finding


def _path(claim: Claim, setting: Setting) -> Path:
    """Where the finding is kept. The name has a hash of all that the finding depends on."""
    subject, base = setting.subject, setting.subject.editor.engine.base
    content = {
        "claim": claim.digest,
        "outcomes": OUTCOME_VERSION,
        "expert_set": subject.editor.expert_set.sha256,
        "unified": None if subject.unified is None else subject.unified.expert_set.sha256,
        "n": setting.n,
        "seed": setting.seed,
        "steps": subject.steps,
        "minutes": setting.minutes if claim.trains else None,
        "judge": None if setting.judge is None else setting.judge.identity.model_dump(),
        "device": base.device.type,
        "dtype": str(base.dtype),
    }
    return setting.out / "findings" / f"claim-{claim.id}-{json_digest(content)[:12]}.json"
