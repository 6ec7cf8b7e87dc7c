"""The language of docs, docstrings, help and errors: the terms of the glossary, and none of the private words of before."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGES = ("platform", "deployments", "eval")
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
# The notebook keeps its entries as they were written.
PAGES.remove(ROOT / "docs/notebook.md")

# What each word is replaced by is in the second column; docs/glossary.md has the nouns.
BANNED = {
    r"told|tells of|is told": "given, reported, shown, says",
    r"in hand": "in flight",
    r"anew": "again, new",
    r"dealt": "assigned",
    r"beside": "next to, with, in addition to",
    r"somebody|nobody|whoever": "a user, no user, the caller",
    r"is no [a-z]+\b(?<!is no longer)(?<!is no more)": "is not a ...",
    r"there is none|there are none": "does not exist, no ... exists",
    r"which there (?:is|are) not": "which does not exist",
    r"cut out": "disabled, removed",
    r"stands? for": "represents, means",
    r"laid|lays": "put, placed",
    r"upon": "on",
    r"therein|thereof|thereby|herein|hereby": "in it, of it",
    r"to the letter": "exactly",
    r"whereabouts": "path, place",
    r"of old|of late|at last": "old, recently, finally",
    r"in vain": "without effect",
    r"out of turn": "early",
    r"one another's": "each other's",
    r"bears?|borne": "has, carries",
    r"forthwith|henceforth|hitherto": "now, from now on, until now",
    r"ought": "should",
    r"whatsoever|wheresoever": "any",
    r"lest": "so that ... not",
    r"it is they who|it is he who": "they",
}
PATTERN = re.compile("|".join(rf"(?:\b(?:{words})\b)" for words in BANNED), re.IGNORECASE)


NOT_YET_DONE: set[str] = {
    "deployments/careedit_deployments/ab/export.py",
    "deployments/careedit_deployments/ab/guard.py",
    "deployments/careedit_deployments/ab/judging.py",
    "deployments/careedit_deployments/ab/shadow.py",
    "deployments/careedit_deployments/ab/status.py",
    "deployments/careedit_deployments/app.py",
    "deployments/careedit_deployments/bench/baselines/__main__.py",
    "deployments/careedit_deployments/bench/baselines/lit.py",
    "deployments/careedit_deployments/bench/baselines/plain.py",
    "deployments/careedit_deployments/bench/baselines/settings.py",
    "deployments/careedit_deployments/bench/command.py",
    "deployments/careedit_deployments/bench/load.py",
    "deployments/careedit_deployments/bench/measure.py",
    "deployments/careedit_deployments/bench/memory.py",
    "deployments/careedit_deployments/bench/report.py",
    "deployments/careedit_deployments/bench/run.py",
    "deployments/careedit_deployments/bench/stand.py",
    "deployments/careedit_deployments/bench/trace.py",
    "deployments/careedit_deployments/bench/workload.py",
    "deployments/careedit_deployments/cli/ab.py",
    "deployments/careedit_deployments/cli/keys.py",
    "deployments/careedit_deployments/cli/serve.py",
    "deployments/careedit_deployments/cluster/drain_rate.py",
    "deployments/careedit_deployments/cluster/fleet.py",
    "deployments/careedit_deployments/cluster/proxy.py",
    "deployments/careedit_deployments/cluster/ray_backend.py",
    "deployments/careedit_deployments/cluster/shutdown.py",
    "deployments/careedit_deployments/cluster/stopping.py",
    "deployments/careedit_deployments/config.py",
    "deployments/careedit_deployments/edits/assignment.py",
    "deployments/careedit_deployments/edits/backend.py",
    "deployments/careedit_deployments/edits/sessions.py",
    "deployments/careedit_deployments/errors.py",
    "deployments/careedit_deployments/http/__init__.py",
    "deployments/careedit_deployments/http/arms.py",
    "deployments/careedit_deployments/http/assemble.py",
    "deployments/careedit_deployments/http/auth.py",
    "deployments/careedit_deployments/http/decoding.py",
    "deployments/careedit_deployments/http/docs.py",
    "deployments/careedit_deployments/http/edits.py",
    "deployments/careedit_deployments/http/errors.py",
    "deployments/careedit_deployments/http/files.py",
    "deployments/careedit_deployments/http/form.py",
    "deployments/careedit_deployments/http/gate.py",
    "deployments/careedit_deployments/http/job_answers.py",
    "deployments/careedit_deployments/http/jobs.py",
    "deployments/careedit_deployments/http/models.py",
    "deployments/careedit_deployments/http/schema.py",
    "deployments/careedit_deployments/http/services.py",
    "deployments/careedit_deployments/http/session_answers.py",
    "deployments/careedit_deployments/http/sessions.py",
    "deployments/careedit_deployments/http/sse.py",
    "deployments/careedit_deployments/jobs/__init__.py",
    "deployments/careedit_deployments/jobs/background.py",
    "deployments/careedit_deployments/jobs/counting.py",
    "deployments/careedit_deployments/jobs/pool.py",
    "deployments/careedit_deployments/jobs/sweep.py",
    "deployments/careedit_deployments/jobs/worker.py",
    "deployments/careedit_deployments/kubernetes/cluster.py",
    "deployments/careedit_deployments/kubernetes/command.py",
    "deployments/careedit_deployments/kubernetes/credentials.py",
    "deployments/careedit_deployments/kubernetes/dashboards.py",
    "deployments/careedit_deployments/kubernetes/pods.py",
    "deployments/careedit_deployments/kubernetes/rayservice.py",
    "deployments/careedit_deployments/kubernetes/rules.py",
    "deployments/careedit_deployments/planning/command.py",
    "deployments/careedit_deployments/planning/model.py",
    "deployments/careedit_deployments/planning/plan.py",
    "deployments/careedit_deployments/planning/replay.py",
    "deployments/careedit_deployments/planning/simulate.py",
    "deployments/careedit_deployments/problems.py",
    "deployments/careedit_deployments/replica/scaling.py",
    "deployments/careedit_deployments/replica/scheduler.py",
    "deployments/careedit_deployments/scorer/batched.py",
    "deployments/careedit_deployments/scorer/pool.py",
    "deployments/careedit_deployments/state/base.py",
    "deployments/careedit_deployments/state/blobs.py",
    "deployments/careedit_deployments/state/logs.py",
    "deployments/careedit_deployments/state/queue.py",
    "deployments/careedit_deployments/state/records.py",
    "deployments/careedit_deployments/state/session_table.py",
    "deployments/careedit_deployments/state/tables.py",
    "deployments/careedit_deployments/telemetry/__init__.py",
    "deployments/careedit_deployments/telemetry/catalogue.py",
    "deployments/careedit_deployments/telemetry/logs.py",
    "deployments/careedit_deployments/telemetry/metrics.py",
    "deployments/careedit_deployments/telemetry/scorer.py",
    "deployments/careedit_deployments/telemetry/tracing.py",
    "platform/careedit/cli/bench.py",
    "platform/careedit/cli/edit.py",
    "platform/careedit/cli/editors.py",
    "platform/careedit/cli/experts.py",
    "platform/careedit/cli/files.py",
    "platform/careedit/cli/lazy.py",
    "platform/careedit/cli/train.py",
    "platform/careedit/editing/base.py",
    "platform/careedit/encoders/openclip.py",
    "platform/careedit/encoders/towers.py",
    "platform/careedit/encoders/vit.py",
    "platform/careedit/experts/alphas.py",
    "platform/careedit/experts/base.py",
    "platform/careedit/experts/baseline.py",
    "platform/careedit/experts/check.py",
    "platform/careedit/experts/edit_set.py",
    "platform/careedit/experts/layouts.py",
    "platform/careedit/experts/make.py",
    "platform/careedit/experts/memory.py",
    "platform/careedit/experts/pool.py",
    "platform/careedit/experts/set.py",
    "platform/careedit/experts/shared.py",
    "platform/careedit/experts/store.py",
    "platform/careedit/finetune/card.py",
    "platform/careedit/finetune/curve.py",
    "platform/careedit/finetune/data/check.py",
    "platform/careedit/finetune/data/columns.py",
    "platform/careedit/finetune/data/rows.py",
    "platform/careedit/finetune/data/tables.py",
    "platform/careedit/finetune/expert.py",
    "platform/careedit/finetune/loop.py",
    "platform/careedit/finetune/run.py",
    "platform/careedit/images/colour.py",
    "platform/careedit/images/fit.py",
    "platform/careedit/images/heif.py",
    "platform/careedit/images/jpeg.py",
    "platform/careedit/images/marks.py",
    "platform/careedit/images/masks.py",
    "platform/careedit/images/png.py",
    "platform/careedit/net.py",
    "platform/careedit/records.py",
    "platform/careedit/routing/base.py",
    "platform/careedit/routing/rules.py",
    "platform/careedit/routing/transformer/batch.py",
    "platform/careedit/routing/transformer/router.py",
    "platform/careedit/routing/vocabulary.py",
    "platform/careedit/routing/words.py",
    "platform/careedit/scoring/atoms.py",
    "platform/careedit/scoring/base.py",
    "platform/careedit/scoring/clause_patterns.py",
    "platform/careedit/scoring/clauses.py",
    "platform/careedit/scoring/openai_http.py",
    "platform/careedit/scoring/pairwise.py",
    "platform/careedit/scoring/sent.py",
    "platform/careedit/scoring/vlm.py",
    "platform/careedit/scoring/vqa.py",
    "platform/careedit/tabular.py",
    "platform/careedit_tiny/cli/train_router.py",
    "platform/careedit_tiny/models/judge.py",
    "platform/careedit_tiny/oracle/compare.py",
    "platform/careedit_tiny/oracle/corruptions.py",
    "platform/careedit_tiny/recipes/base/heads.py",
    "platform/careedit_tiny/recipes/base/labels.py",
    "platform/careedit_tiny/recipes/base/train.py",
    "platform/careedit_tiny/recipes/base/widen.py",
    "platform/careedit_tiny/recipes/cards.py",
    "platform/careedit_tiny/recipes/clip/captions.py",
    "platform/careedit_tiny/recipes/dino/report.py",
    "platform/careedit_tiny/recipes/family.py",
    "platform/careedit_tiny/recipes/judge/data.py",
    "platform/careedit_tiny/recipes/judge/report.py",
    "platform/careedit_tiny/recipes/judge/train.py",
    "platform/careedit_tiny/recipes/router/examples.py",
    "platform/careedit_tiny/recipes/router/pool.py",
    "platform/careedit_tiny/recipes/router/run.py",
    "platform/careedit_tiny/recipes/router/teach.py",
    "platform/careedit_tiny/recipes/vae.py",
    "platform/careedit_tiny/world/operations.py",
    "platform/careedit_tiny/world/store.py",
}
"""Modules whose words are still the old ones; a module leaves the list when it is rewritten."""


def texts_of(path: Path) -> list[tuple[int, str]]:
    """Every string and comment of a module that is prose, and its names, with their line."""
    source = path.read_text(encoding="utf-8")
    found = [(number, line.split("#", 1)[1]) for number, line in enumerate(source.splitlines(), 1) if "# " in line]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            found.append((node.lineno, node.value))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append((node.lineno, node.name.replace("_", " ")))
        elif isinstance(node, ast.arg):
            found.append((node.lineno, node.arg.replace("_", " ")))
    return found


def hits_of(path: Path) -> list[str]:
    name = path.relative_to(ROOT).as_posix()
    return [f"{name}:{line}: {match.group()}" for line, text in texts_of(path) if (match := PATTERN.search(text))]


def test_modules_use_plain_words() -> None:
    modules = {
        path.relative_to(ROOT).as_posix(): path for root in PACKAGES for path in sorted((ROOT / root).rglob("*.py"))
    }
    hits = {name: hits_of(path) for name, path in modules.items()}
    assert [hit for name, found in hits.items() if name not in NOT_YET_DONE for hit in found] == []
    assert {name for name in NOT_YET_DONE if not hits.get(name)} == set(), "remove these from NOT_YET_DONE"


def test_pages_use_plain_words() -> None:
    hits = [
        f"{page.name}:{number}: {match.group()}"
        for page in PAGES
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if (match := PATTERN.search(line))
    ]
    assert hits == []


def test_the_glossary_has_at_most_sixty_terms() -> None:
    rows = re.findall(
        r"^\| (?!term\b)([a-z][^|]+?) \|", (ROOT / "docs/glossary.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert 30 <= len(rows) <= 60
    assert len(set(rows)) == len(rows)
