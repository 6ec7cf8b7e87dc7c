"""Metrics by a judge: VQA scores of one edit, and which of two edits is better. An unreadable answer is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from careedit.scoring import Asker, AtomicScorer, Pair, Preference, Score, Scorer, ScoreRequest, VqaScorer, compare
from careedit.scoring.openai import EndpointAsker
from careedit.scoring.openai_http import EndpointConfig
from careedit.scoring.pairwise import BETTER
from careedit.scoring.pairwise import PROMPTS as PAIRWISE
from careedit.scoring.scorer import Answer, JudgeIdentity, identity_of
from careedit.scoring.sent import settings_of
from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import ScoreItem, ask_about, resized
from careedit_eval.metrics.options import JudgeOptions
from careedit_eval.records import JudgeAnswer, Measurement, Metric, MetricSpec, Output

ASPECTS = ("followed", "preserved", "clean", "overall")
LOCAL = "transformers"
"""The backend that is asked item by item: it pads batches, so the last bits of an answer would depend on its neighbours."""
ORDERS = ("the other edit is shown last", "this edit is shown last")
SIZED = "edit resized to the source's size, Pillow's bicubic"


class VqaMetric:
    """P(instruction followed), P(rest preserved), P(no artefacts) and their product, from yes/no questions."""

    needs: frozenset[str] = frozenset()

    def __init__(self, scorer: Scorer, *, name: str = "vqa") -> None:
        self.scorer, self.name = scorer, name

    @property
    def spec(self) -> MetricSpec:
        """See `careedit_eval.records.Metric`."""
        outputs = tuple(Output(name=f"{self.name}_{aspect}", better="higher") for aspect in ASPECTS)
        asker = getattr(self.scorer, "asker", None)
        return _judged(self.name, outputs, self.scorer.identity, "source and text", settings_of(asker))

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""

        def ask(requests: list[ScoreRequest]) -> list[Measurement]:
            return [self._measurement(score) for score in self.scorer.score(requests)]

        return ask_about(batch, _request, ask, alone=self.scorer.identity.backend == LOCAL)

    def _measurement(self, score: Score) -> Measurement:
        answers = tuple(_answer(one.aspect, one.question, one.answer) for one in score.asked)
        if score.error is not None:
            return Measurement(error=score.error, answers=answers)
        values = {f"{self.name}_{aspect}": getattr(score, aspect) for aspect in ASPECTS}
        return Measurement(values=values, answers=answers)


class PairwiseWin:
    """1, 0.5 or 0: the edit is better than its rival in both orders, the orders disagree, or it is worse in both."""

    needs = frozenset({"rival"})

    def __init__(self, asker: Asker, *, name: str = "pairwise") -> None:
        self.asker, self.name = asker, name

    @property
    def spec(self) -> MetricSpec:
        """See `careedit_eval.records.Metric`."""
        outputs = (
            Output(name=f"{self.name}_win", better="higher"),
            Output(name=f"{self.name}_consistent", better="neither", passes=True),
        )
        return _judged(self.name, outputs, identity_of(self.asker, PAIRWISE), "rival", settings_of(self.asker))

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`; two questions per item."""

        def ask(pairs: list[Pair]) -> list[Measurement]:
            return [self._measurement(preference) for preference in compare(self.asker, pairs)]

        return ask_about(batch, _pair, ask, alone=self.asker.backend == LOCAL)

    def _measurement(self, preference: Preference) -> Measurement:
        answers = tuple(_answer(order, BETTER, one) for order, one in zip(ORDERS, preference.orders, strict=True))
        if preference.error is not None or preference.winner is None:
            return Measurement(error=preference.error or "The judge gave no preference.", answers=answers)
        second_last, first_last = (answer.yes for answer in preference.orders)
        agreed = preference.winner != "tie" or second_last == first_last == 0.5
        return Measurement(
            values={
                f"{self.name}_win": {"first": 1.0, "tie": 0.5, "second": 0.0}[preference.winner],
                f"{self.name}_consistent": float(agreed),
            },
            answers=answers,
        )


def _answer(about: str, asked: str, found: Answer) -> JudgeAnswer:
    reply = None if found.yes is None else f"P(yes) = {found.yes:.6g}"
    return JudgeAnswer(about=about, asked=asked, reply=reply, error=found.error)


def _request(item: ScoreItem) -> ScoreRequest:
    pictures = item.pictures
    return ScoreRequest(
        source=pictures.source,
        edited=item.edited_at(pictures.source.size),
        instruction=item.sample.instruction,
        references=pictures.references,
    )


def _pair(item: ScoreItem) -> Pair:
    pictures = item.pictures
    return Pair(
        source=pictures.source,
        first=item.edited_at(pictures.source.size),
        second=resized(item.rival, pictures.source.size),
        instruction=item.sample.instruction,
        references=pictures.references,
    )


def _judged(
    name: str,
    outputs: tuple[Output, ...],
    judge: JudgeIdentity,
    reference: Literal["source and text", "rival"],
    settings: Mapping[str, str],
) -> MetricSpec:
    return MetricSpec(
        name=name,
        outputs=outputs,
        protocol=judge.prompts,
        backbone=f"{judge.backend} {judge.model}",
        revision=judge.revision,
        preprocessing=SIZED,
        reference=reference,
        text_field="instruction",
        dtype=settings.get("dtype", "as served"),
        code_version=2,  # since then the settings say what the judge is sent
        settings=settings,
    )


def vqa(options: JudgeOptions) -> Metric:
    """VQA scores from their options."""
    return VqaMetric(VqaScorer(_asker(options)))


def atomic(options: JudgeOptions) -> Metric:
    """Atomic VQA scores from their options."""
    return VqaMetric(AtomicScorer(_asker(options)), name="atomic")


def pairwise(options: JudgeOptions) -> Metric:
    """Pairwise preferences from their options."""
    return PairwiseWin(_asker(options))


def _asker(options: JudgeOptions) -> Asker:
    if options.endpoint is None:
        from careedit.scoring.vlm import load_judge

        return load_judge(options.judge, revision=options.revision, device=options.device).asker
    config = EndpointConfig(**options.endpoint)
    if config.answers == "auto":  # the first answer would decide it, and with it the metric's identity
        raise MetricError('An endpoint that measures must say how it answers; set `answers` to "logprobs" or "json".')
    return EndpointAsker(config)
