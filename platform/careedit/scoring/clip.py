"""CLIP similarity as a judge: a baseline of the literature, not a judge to trust.

A picture of the right objects is near its description, whatever else was changed. So a high similarity shows little about
an edit (arXiv 2504.20690, table 5: choosing by CLIP was worse than not choosing). It ranks edits; its scores are not
probabilities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from careedit.encoders import OpenClipEncoder
from careedit.scoring.scorer import JudgeIdentity, Score, ScoreRequest

PROMPTS = "clip-1"
"""Version of the way in which a score is computed."""

TextOf = Callable[[ScoreRequest], str]


class ClipScorer:
    """Scores an edit by its picture's cosine with a text, from -1..1 to 0..1; a `careedit.scoring.Scorer`.

    `text_of` gives the text, by default the instruction; a description of the wanted picture is the fairer one. CLIP
    cannot judge whether the rest was preserved and the picture is clean; both count as certain.
    """

    def __init__(
        self, encoder: OpenClipEncoder, *, model: str, revision: str = "unknown", text_of: TextOf | None = None
    ) -> None:
        self.encoder = encoder
        self.text_of: TextOf = text_of or (lambda request: request.instruction)
        self.identity = JudgeIdentity(backend="open_clip", model=model, revision=revision, prompts=PROMPTS)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """See `careedit.scoring.scorer.Scorer`; pictures are encoded as one batch, each text once."""
        if not requests:
            return []
        pictures = self.encoder.image_embeddings([request.edited for request in requests])
        scores = []
        for picture, request in zip(pictures, requests, strict=True):
            cosine = float(picture @ self.encoder.text_embedding(self.text_of(request)))
            near = min(1.0, max(0.0, (1 + cosine) / 2))
            scores.append(Score(followed=near, preserved=1.0, clean=1.0, overall=near, judge=self.identity))
        return scores
