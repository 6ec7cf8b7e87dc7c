"""The outcome of a gate: one outcome per check, and one for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from careedit_eval.compare.words import digits_for, spoken
from careedit_eval.records import Better
from careedit_eval.stats import Interval

Outcome = Literal["pass", "worse", "inconclusive"]
""" "pass": the check holds; "worse": it is shown not to hold; "inconclusive": the run has too little data."""
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "worse": 1, "inconclusive": 3}
"""The exit code of a command by outcome; 2 means wrong input."""

SHOWN = 3
"""The maximum number of checks in a verdict's line."""


def outcome_of(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of several checks together: "worse" wins, then "inconclusive"."""
    found = set(outcomes)
    return "worse" if "worse" in found else "inconclusive" if "inconclusive" in found else "pass"


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of a gate and its outcome."""

    name: str
    """What is checked: "margin", "coverage", "errors" or "slowdown"."""
    benchmark: str
    """The name of the benchmark."""
    output: str | None
    """The name of the number, for a margin."""
    kind: str
    """The kind of edit that is checked, or "all"."""
    value: float | None
    """The value that is compared with the bound; for a margin the worse end of the interval."""
    bound: float
    """The bound that the value is compared with."""
    outcome: Outcome
    """Whether the check holds, fails or is inconclusive."""
    sentence: str
    """The same as a sentence for people."""
    estimate: float | None = None
    """For a margin: the mean of B - A."""
    interval: Interval | None = None
    """For a margin: the 95 % interval of B - A."""
    better: Better | None = None
    """For a margin: whether higher or lower numbers are better."""
    passes: bool = False
    """For a margin: whether the number is 0 or 1."""
    images: int | None = None
    """For a margin: the number of source images with numbers of both sets."""
    needed: int | None = None
    """For a margin: the source images needed to show with a power of 0.8 that an equally good set is not worse; None: unknown."""

    @property
    def passed(self) -> bool:
        """Whether the check holds."""
        return self.outcome == "pass"

    @property
    def measured(self) -> str:
        """The number of a margin in words: estimate, interval and margin."""
        where = f"{self.output} on {self.benchmark}" + ("" if self.kind == "all" else f" ({self.kind})")
        sign = "+" if self.better == "lower" else "-"
        size = f"{100 * self.bound:g} points" if self.passes else f"{self.bound:g}"
        margin = f"{sign}{size}" if self.bound else size
        if self.estimate is None:
            return f"{where} has no numbers on both sides, margin {margin}"
        found = spoken(self.estimate, self.interval, passes=self.passes, digits=digits_for(self.bound))
        return f"{where} {found}, margin {margin}"


@dataclass(frozen=True)
class Verdict:
    """The decision of a gate, with all checks."""

    candidate: str
    """The name of the set that is judged."""
    baseline: str
    """The name of the set or baseline that it is compared with."""
    checks: tuple[Check, ...]
    """All checks of the gate."""

    @property
    def outcome(self) -> Outcome:
        """The outcome of all checks together."""
        return outcome_of(check.outcome for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether all checks hold."""
        return self.outcome == "pass"

    @property
    def exit_code(self) -> int:
        """The exit code 0, 1 or 3; see `EXIT_CODES`."""
        return EXIT_CODES[self.outcome]

    @property
    def line(self) -> str:
        """The verdict as one sentence: what decided, with estimate, interval, margin and number of images."""
        failed = [check for check in self.checks if check.outcome == self.outcome and self.outcome != "pass"]
        said = [check.sentence for check in failed or self.checks if failed or check.name == "margin"]
        decided = "; ".join(said[:SHOWN]) + (f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else "")
        a, b = self.baseline, self.candidate
        opening = {
            "pass": f"PASS: {b} may replace {a}",
            "worse": f"WORSE: {b} must not replace {a}",
            "inconclusive": f"INCONCLUSIVE: too little is known to replace {a} by {b}",
        }[self.outcome]
        return f"{opening}: {decided}." if decided else f"{opening} ({len(self.checks)} checks)."

    def document(self) -> dict[str, Any]:
        """The verdict as JSON data. Version 2 added the three outcomes; `passed` stays for readers of version 1."""
        return {
            "schema_version": 2,
            "outcome": self.outcome,
            "passed": self.passed,
            "line": self.line,
            "candidate": self.candidate,
            "baseline": self.baseline,
            "checks": [asdict(check) | {"passed": check.passed} for check in self.checks],
        }


def advice_of(verdict: Verdict, narrowed: str | None) -> str:
    """What to do after a verdict, in one or two sentences; `narrowed` says why the run covers only a part of its suite."""
    a, b = verdict.baseline, verdict.candidate
    whole = "" if narrowed is None else f"Run the whole suite first ({narrowed})."
    if verdict.outcome == "worse":
        return f"Keep {a}. The worst pictures and the kinds with the largest losses show what {b} must improve."
    if verdict.outcome == "pass":
        return whole or f"`careedit eval promote` makes {b} the champion."
    unsure = [check for check in verdict.checks if check.outcome == "inconclusive"]
    needs = [check.needed for check in unsure if check.needed is not None and check.needed > (check.images or 0)]
    steps = [whole] if whole else []
    if needs:
        more = f"{max(needs):,} pictures or more"
        steps.append(f"Then give the suite {more}, if it has fewer." if whole else f"Give the suite {more}.")
    elif any(check.name == "margin" for check in unsure):
        steps.append(f"Look at the worst pictures, or add pictures: {b} may be worse by more than its margin.")
    if any(check.name == "slowdown" for check in unsure):
        steps.append("Raise timing.samples, and time both sets in one run.")
    return " ".join(steps)
