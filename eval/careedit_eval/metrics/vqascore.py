"""VQAScore (Lin and others, arXiv 2404.01291): P("Yes") that the edit shows a text, over the model's whole vocabulary.

The metric `vqa` asks other questions, about source and edit, and normalises over yes and no.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from careedit.scoring import Question
from careedit.scoring.vlm import TransformersAsker, load_judge
from careedit_eval.errors import MetricError
from careedit_eval.metrics.base import ScoreItem, one_by_one
from careedit_eval.metrics.options import VqaScoreOptions
from careedit_eval.records import Measurement, Metric, MetricSpec, Output


class VqaScore:
    """The probability of one answer token; each edit is asked alone, because padding would change the last bits."""

    def __init__(self, asker: TransformersAsker, options: VqaScoreOptions) -> None:
        ids = asker.processor.tokenizer.encode(options.answer, add_special_tokens=False)
        if len(ids) != 1:
            raise MetricError(
                f"The tokenizer of {asker.model!r} writes {options.answer!r} as {len(ids)} tokens; give an answer of one."
            )
        self._asker, self._options, self._token = asker, options, int(ids[0])
        self.needs = frozenset({f"text:{options.text}"})
        self.spec = MetricSpec(
            name="vqascore",
            outputs=(Output(name="vqascore", better="higher"),),
            protocol="vqascore-1",
            backbone=f"{asker.backend} {asker.model}",
            revision=asker.revision,
            preprocessing="the edit in its own size; the model's own processor and chat template",
            reference="text",
            text_field=options.text,
            dtype=asker.settings["dtype"],
            settings={**asker.settings, "question": options.question, "answer": options.answer},
        )

    def score(self, batch: Sequence[ScoreItem]) -> list[Measurement]:
        """See `careedit_eval.records.Metric`."""
        return one_by_one(batch, self._measure)

    def _measure(self, item: ScoreItem) -> Measurement:
        text = self._options.question.replace("{text}", item.sample.texts[self._options.text])
        inputs = self._asker.encode([Question(images=(item.edited,), text=text)])
        length = int(inputs["attention_mask"].sum())
        if length > self._asker.context:
            raise MetricError(
                f"The question takes {length} tokens, and {self._asker.model} reads {self._asker.context}; use a model with a "
                "longer context."
            )
        value = float(self._asker.next_logits(inputs).float().softmax(dim=1)[0, self._token])
        if not math.isfinite(value):
            raise MetricError("The model's answer is not a number; load it with another dtype.")
        return Measurement(values={"vqascore": value})


def vqascore(options: VqaScoreOptions) -> Metric:
    """VQAScore from its options."""
    asker = load_judge(options.model, revision=options.revision, device=options.device).asker
    if not isinstance(asker, TransformersAsker):
        raise MetricError(f"{options.model!r} is not a model of transformers; name one by folder or hub id.")
    return VqaScore(asker, options)
