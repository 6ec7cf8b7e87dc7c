"""Edits with an early filter: the budget, the batches, the encodings, and what happens without a judge."""

from collections import Counter

import numpy as np
import pytest
import torch

from careedit import EditRequest
from careedit.errors import InputError
from careedit.images import image_sha256
from careedit.records import EarlyFilter
from careedit.selection.judge import Judge

STEPS = 8
MIXTURE = {"style": 0.6, "erase": 0.4}


@pytest.fixture
def editor(open_editor):
    """The untrained editor, without a judge again afterwards."""
    made = open_editor("shared")
    made.engine.cache.clear()
    yield made
    made.judge = None


@pytest.fixture
def edit(editor, draw_picture, draw_mask):
    def call(scorer, *, masked=False, on_step=None, expert="erase", n=1, seed=100, steps=STEPS, **filtered):
        editor.judge = None if scorer is None else Judge(scorer)
        request = EditRequest(
            image=draw_picture((96, 64)),
            instruction="remove the red circle",
            mask=draw_mask((96, 64)) if masked else None,
            seed=seed,
            steps=steps,
            n=n,
            expert=expert,
            early_filter=EarlyFilter(**filtered) if filtered else None,
        )
        return editor.edit(request, on_step=on_step)

    return call


@pytest.fixture
def rows(editor, monkeypatch):
    """Rows of every batch that the transformer is given, in order; it computes nothing, because only they count."""
    seen = []
    channels = editor.engine.applier.transformer.config.out_channels

    def counted(names, inputs):
        seen.append(len(names))
        return torch.zeros(*inputs.per_row["hidden_states"].shape[:2], channels)

    monkeypatch.setattr(editor.engine.applier, "velocity", counted)
    return seen


@pytest.mark.parametrize(
    ("strategy", "batches"),
    [
        ("restart", [3] * 4 + [1] * 8),
        ("continue", [3] * 4 + [1] * 4),
        ("halving", [3] * 2 + [2] * 2 + [1] * 4),
    ],
)
@pytest.mark.parametrize(
    ("expert", "masked", "cost"), [("erase", False, 1), ("erase", True, 1), (MIXTURE, False, 2), (MIXTURE, True, 3)]
)
def test_the_budget_is_spent_exactly_in_one_batch_per_step(
    strategy, batches, expert, masked, cost, edit, rows, scripted
):
    scorer = scripted([0.1, 0.3, 0.2], [0.5, 0.6])
    result = edit(scorer, strategy=strategy, candidates=3, preview_steps=4, expert=expert, masked=masked)
    assert rows == [cost * count for count in batches]
    assert result.trace.nfe == sum(rows)
    assert result.trace.filter.nfe == sum(rows[:4])
    assert result.trace.seconds.keys() == {"route", "filter", "denoise", "finish"}


def test_what_was_tried_stands_in_the_trace(edit, scripted):
    scorer = scripted([0.1, None, 0.2, 0.3], [0.5, 0.4])
    result = edit(scorer, strategy="halving", candidates=4, preview_steps=4)
    trace = result.trace.filter

    assert (trace.strategy, trace.preview_steps, trace.chosen, trace.exited_early) == ("halving", 4, 2, False)
    assert [(one.seed, one.steps, one.score) for one in trace.candidates] == [
        (100, 2, 0.1),
        (101, 2, None),
        (102, 4, 0.5),
        (103, 4, 0.4),
    ]
    assert trace.candidates[1].error == "The answer was a poem."
    assert [one.preview_sha256 for one in trace.candidates] == [image_sha256(one) for one in result.previews[0]]
    assert trace.judge == {"backend": "test", "model": "scripted", "revision": "1", "prompts": "none-1"}
    assert (result.trace.seed, result.trace.degradations) == (102, ())
    # The judge sees panels without their bars, whatever the source's size, and all candidates of a look at once.
    assert [len(asked) for asked in scorer.asked] == [4, 2]
    assert scorer.asked[0][0].edited.tobytes() == result.previews[0][0].tobytes()
    assert scorer.asked[0][0].source.size == result.previews[0][0].size == (64, 43)
    assert result.image.size == (96, 64)


def test_outside_the_mask_a_preview_is_the_source_as_the_answer_is(edit, scripted):
    scorer = scripted([0.1, 0.2])
    edit(scorer, strategy="continue", candidates=2, preview_steps=1, masked=True)
    source, preview = (np.asarray(one, int) for one in (scorer.asked[0][0].source, scorer.asked[0][0].edited))
    assert np.array_equal(source[-8:], preview[-8:]) and not np.array_equal(source, preview)


def test_a_restarted_winner_is_the_edit_of_its_seed_alone(edit, scripted):
    chosen = edit(scripted([0.1, 0.9]), strategy="restart", candidates=2, preview_steps=2)
    alone = edit(None, seed=101)
    assert chosen.image.tobytes() == alone.image.tobytes()
    assert (chosen.trace.nfe, alone.trace.nfe) == (12, 8)
    assert alone.trace.filter is None and alone.previews == ((),)


def test_encodings_are_made_once_for_all_candidates(edit, editor, monkeypatch, scripted):
    calls = Counter()
    kind = type(editor.engine.base)
    for name in ("encode_prompts", "_encode_canvas"):
        made = getattr(kind, name)

        def counted(*inputs, made=made, name=name):
            calls[name] += 1
            return made(*inputs)

        monkeypatch.setattr(kind, name, counted)
    edit(scripted([0.1, 0.9, 0.2]), strategy="restart", candidates=3, preview_steps=2, masked=True)
    assert calls == {"encode_prompts": 1, "_encode_canvas": 1}


def test_a_clearly_good_candidate_saves_the_rest_of_the_budget(edit, rows, scripted):
    result = edit(scripted([0.1, 0.95, 0.2]), strategy="halving", candidates=3, preview_steps=4, early_exit=0.9)
    assert rows == [3] * 2 + [1] * 6
    assert result.trace.nfe == 12
    assert result.trace.filter.exited_early and result.trace.filter.chosen == 1


@pytest.mark.parametrize("strategy", ["restart", "continue", "halving"])
@pytest.mark.parametrize("answer", [RuntimeError("no memory"), [None] * 3, [0.5]])
def test_a_judge_that_fails_costs_the_filter_and_not_the_edit(strategy, answer, edit, rows, scripted):
    result = edit(scripted(answer), strategy=strategy, candidates=3, preview_steps=4)
    trace = result.trace
    assert (trace.seed, trace.filter.chosen, len(trace.filter.looks)) == (100, 0, 1)
    (degradation,) = trace.degradations
    assert degradation.startswith("degraded: filter, the judge ") and degradation.endswith(", so seed 100 went on")
    assert [one.score for one in trace.filter.candidates] == [None] * 3
    spent = trace.filter.looks[0].steps
    assert trace.nfe == 3 * spent + STEPS - (0 if strategy == "restart" else spent)


def test_every_image_of_a_request_has_its_own_candidates_and_begins_with_the_unfiltered_seed(edit, scripted):
    result = edit(scripted([0.9, 0.1], [0.1, 0.9], [0.9, 0.1]), strategy="continue", candidates=2, preview_steps=1, n=3)
    assert [[one.seed for one in trace.filter.candidates] for trace in result.traces] == [
        [100, 103],
        [101, 104],
        [102, 105],
    ]
    assert [trace.seed for trace in result.traces] == [100, 104, 102]
    assert [len(previews) for previews in result.previews] == [2, 2, 2]


@pytest.mark.parametrize("filtered", [{"strategy": "none"}, {"candidates": 1}])
def test_where_there_is_nothing_to_choose_no_judge_is_needed(filtered, edit):
    result = edit(None, **filtered)
    assert (result.trace.seed, result.trace.nfe, result.trace.filter) == (100, STEPS, None)


def test_a_filter_without_a_judge_is_refused_before_anything_is_edited(edit, rows):
    with pytest.raises(InputError, match="needs a judge; give the editor a scorer"):
        edit(None, strategy="halving")
    assert rows == []


def test_seeds_must_leave_room_for_every_candidate(edit, scripted):
    with pytest.raises(InputError, match="leaves no room"):
        edit(scripted(), seed=2**63 - 6, n=2, candidates=4)


def test_progress_counts_every_candidates_steps(edit, scripted):
    seen = []
    edit(
        scripted([0.1, 0.2, 0.3], [0.1, 0.2]),
        strategy="halving",
        candidates=3,
        preview_steps=2,
        on_step=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(3, 11), (5, 11), *((done, 11) for done in range(6, 12))]


def test_whoever_leaves_during_the_previews_abandons_the_edit(edit, rows, scripted):
    class Gone(Exception):
        pass

    def leave(done, total):
        raise Gone

    with pytest.raises(Gone):
        edit(scripted(), candidates=3, preview_steps=2, on_step=leave)
    assert rows == [3]
