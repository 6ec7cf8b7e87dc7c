"""Asks a judge about pairs that people compared, and writes down how well it did."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from careedit.errors import CareEditError, InputError
from careedit.files import write_atomic
from careedit.record import Record
from careedit_eval.judges.figures import ABOUT, Figure, Judged, figures_of
from careedit_eval.judges.pairs import PUBLISHED, Candidate, Rated, RatedPair
from careedit_eval.metrics.base import ScoreItem
from careedit_eval.pipeline.workers import measure
from careedit_eval.records import Measurement, Metric, MetricSpec, Output
from careedit_eval.suite import Part, Suite, make_metric

BATCH = 8
"""The number of items that are measured together."""
Progress = Callable[[int, int], None]
"""Called with the number of answered questions and the number of all questions."""


class JudgeCheck(Record):
    """The content of a check's file."""

    schema_version: Literal[1] = 1
    """The version of this file's format."""
    number: str
    """The number of the judge by which pairs were decided, such as "vqa_overall"."""
    metric_key: str
    """The identity of the judge, `MetricSpec.key`: model, prompts, address, and everything that is sent."""
    metric: MetricSpec
    """The same identity, field by field."""
    source: str
    """The verdicts of people that it was compared with."""
    source_sha256: str
    """The sha256 over sources, instructions, edits and verdicts of all pairs."""
    pairs: int
    """The number of pairs that people compared."""
    groups: int
    """The number of groups of edits among them."""
    raters: int
    """The number of people who voted; 0 for published verdicts, which do not name them."""
    errors: int
    """The number of pairs without an answer of the judge."""
    first_error: str | None = None
    """The first reason for a missing answer."""
    unusable: tuple[str, ...] = ()
    """The rows of the published file that cannot be used."""
    tie: float = 0.0
    """The largest difference of two scores that counts as no preference."""
    own: tuple[str, ...] = ()
    """The models or sets whose edits are the judge's own."""
    figures: Mapping[str, Figure]
    """Every figure by name; `careedit_eval.judges.figures` explains them."""
    finished: str
    """The end of the check in UTC, ISO 8601."""

    def write(self, file: Path) -> None:
        """Write the file. Raises `InputError` if it cannot be written."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(file, f"{self.model_dump_json(indent=1)}\n".encode())
        except OSError as error:
            raise InputError(f"The check {file} cannot be written ({error.strerror}); give another file.") from error

    @classmethod
    def read(cls, file: Path) -> JudgeCheck:
        """Read what `write` wrote. Raises `InputError`."""
        try:
            data: Any = json.loads(file.read_text("utf-8"))
            if not isinstance(data, dict) or data.get("schema_version") != 1:
                raise ValueError("it is not a check of format 1")
            check = cls(**data)
            if lacks := [name for name in ABOUT if name not in check.figures]:
                raise ValueError(f"it lacks the figure {lacks[0]!r}")
            return check
        except (OSError, ValueError, InputError) as error:
            raise InputError(
                f"The check {str(file)!r} cannot be read ({error}); make one with `careedit eval judge-check`."
            ) from error


def judge_of(suite: Suite, number: str | None = None) -> tuple[Metric, Output]:
    """The metric of a suite that gives `number`, by default its primary number. Raises `InputError`."""
    wanted = number or suite.primary
    parts: list[Part] = [*suite.metrics, *suite.pairwise]
    known: list[str] = []
    # A metric loads its model, so those whose name the number has come first.
    for part in sorted(parts, key=lambda part: not wanted.startswith(part.name)):
        metric = make_metric(part)
        for output in metric.spec.outputs:
            if output.name == wanted and output.better != "neither":
                return metric, output
            known.append(output.name)
    raise InputError(
        f"No metric of the suite gives {wanted!r} as a number to compare by; they give {', '.join(known)}."
    )


def check_judge(
    metric: Metric,
    output: Output,
    rated: Rated,
    *,
    retest: int = 50,
    tie: float = 0.0,
    own: Collection[str] = (),
    done: Progress = lambda *_: None,
) -> JudgeCheck:
    """Ask about every pair, and about the first `retest` pairs again.

    `tie` is the largest difference of two scores that counts as no preference. A failed question is an error of its pair.
    """
    models = {one.model for pair in rated.pairs for one in (pair.left, pair.right)} - {""}
    unknown = sorted(set(own) - models)
    if unknown:
        raise InputError(
            f"No edit is by {unknown[0]!r}; the edits are by {', '.join(sorted(models)) or 'unknown models'}."
        )
    again = rated.pairs[:retest]
    judged = _judged(metric, output, rated.pairs, tie, lambda count: done(count, len(rated.pairs) + len(again)))
    second = _judged(
        metric, output, again, tie, lambda count: done(len(rated.pairs) + count, len(rated.pairs) + len(again))
    )
    judged[: len(second)] = [
        replace(first, again=other.verdict) if first.verdict is not None else first
        for first, other in zip(judged, second, strict=False)
    ]
    errors = [one.error for one in judged if one.verdict is None]
    return JudgeCheck(
        number=output.name,
        metric_key=metric.spec.key,
        metric=metric.spec,
        source=rated.name,
        source_sha256=rated.digest,
        pairs=len(rated.pairs),
        groups=len(rated.groups),
        raters=len({rater for pair in rated.pairs for rater in pair.votes} - {PUBLISHED}),
        errors=len(errors),
        first_error=next(iter(errors), None),
        unusable=rated.unusable,
        tie=tie,
        own=tuple(own),
        figures=figures_of(rated, judged, own=own),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _judged(
    metric: Metric, output: Output, pairs: Sequence[RatedPair], tie: float, done: Callable[[int], None]
) -> list[Judged]:
    """The verdict on each pair: of a judge of pairs, or from the scores of both edits."""
    if "rival" in metric.needs:
        consistent = next((one.name for one in metric.spec.outputs if one.better == "neither" and one.passes), None)
        found = _measured(metric, [(pair, pair.left, pair.right) for pair in pairs], done)
        return [_of_pair(one, output, consistent) for one in found]
    wanted = {
        (pair.sample.id, pair.group, one.name): (pair, one, None) for pair in pairs for one in (pair.left, pair.right)
    }
    share = len(pairs) / max(1, len(wanted))
    scores = dict(
        zip(wanted, _measured(metric, list(wanted.values()), lambda count: done(int(count * share))), strict=True)
    )
    verdicts = []
    for pair in pairs:
        left, right = (scores[pair.sample.id, pair.group, one.name] for one in (pair.left, pair.right))
        verdicts.append(_of_scores(left, right, output, tie))
    return verdicts


def _measured(
    metric: Metric, wanted: Sequence[tuple[RatedPair, Candidate, Candidate | None]], done: Callable[[int], None]
) -> Iterator[Measurement]:
    for start in range(0, len(wanted), BATCH):
        items: list[ScoreItem | str] = []
        for pair, candidate, rival in wanted[start : start + BATCH]:
            try:
                items.append(pair.item(candidate, rival))
            except CareEditError as error:
                items.append(str(error))
        found = iter(measure(metric, [item for item in items if isinstance(item, ScoreItem)]))
        for item in items:
            yield next(found) if isinstance(item, ScoreItem) else Measurement(error=item)
        done(min(len(wanted), start + BATCH))


def _of_pair(found: Measurement, output: Output, consistent: str | None) -> Judged:
    value = found.values.get(output.name)
    if value is None:
        return Judged(None, error=_why(found, output))
    agreed = found.values.get(consistent) if consistent is not None else None
    return Judged((value > 0.5) - (value < 0.5), None if agreed is None else bool(agreed))


def _of_scores(left: Measurement, right: Measurement, output: Output, tie: float) -> Judged:
    values = [one.values.get(output.name) for one in (left, right)]
    if values[0] is None or values[1] is None:
        return Judged(None, error=_why(left if values[0] is None else right, output))
    gain = (values[0] - values[1]) * (-1 if output.better == "lower" else 1)
    return Judged(0 if abs(gain) <= tie else 1 if gain > 0 else -1)


def _why(found: Measurement, output: Output) -> str:
    return found.error or found.not_applicable or found.absent.get(output.name) or f"The metric gave no {output.name}."
