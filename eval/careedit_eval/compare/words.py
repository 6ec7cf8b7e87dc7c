"""Numbers as words: as many digits as help, a sign on differences, and no "-0.0000"."""

from __future__ import annotations

import math

from careedit_eval.stats import Interval


def number(value: float | None) -> str:
    """A number with three or more digits that count."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 100:
        return f"{value:,.1f}"
    return _no_minus_zero(f"{value:.{3 if size >= 0.1 or size < 1e-5 else 4 if size >= 0.01 else 5}f}")


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign; 0 has none."""
    return "–" if value is None else _no_minus_zero(f"{value:+.{digits}f}")


def spoken(value: float, interval: Interval | None, *, passes: bool, digits: int = 4) -> str:
    """A difference with its interval; of pass/fail numbers in points, hundredths of the whole."""
    scale, digits, unit = (100.0, 1, " points") if passes else (1.0, digits, "")
    said = f"{signed(scale * value, digits)}{unit}"
    if interval is None:
        return said
    return f"{said} ({signed(scale * interval.low, digits)} to {signed(scale * interval.high, digits)})"


def digits_for(margin: float) -> int:
    """Digits after the point with which differences are written next to a margin."""
    return max(0, 2 - math.floor(math.log10(margin))) if margin > 0 else 4


def _no_minus_zero(text: str) -> str:
    return text.lstrip("+-") if not text.strip("+-0.,") else text
