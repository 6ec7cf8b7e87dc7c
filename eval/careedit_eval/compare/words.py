"""Numbers as words: as many digits as help, a sign on differences, and no "-0.0000"."""

from __future__ import annotations

import math
from collections.abc import Iterable

from careedit_eval.stats import Interval

MOST_DIGITS = 7
"""The maximum number of digits after the point."""


def number(value: float | None) -> str:
    """A number with three or more digits that count."""
    if value is None:
        return "–"
    size = abs(value)
    if size >= 100:
        return f"{value:,.1f}"
    return _no_minus_zero(f"{value:.{3 if size >= 0.1 or size < 1e-5 else 4 if size >= 0.01 else 5}f}")


def numbers(values: Iterable[float | None]) -> list[str]:
    """The numbers of one row, all with the same digits after the point: as few as tell different numbers apart."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    if all(float(value).is_integer() for value in known):
        return ["–" if value is None else f"{value:,.0f}" for value in listed]
    # Sets that are equal in five digits that count are shown as equal.
    apart = len({f"{value:.5g}" for value in known})
    sizes = [abs(value) for value in known if abs(value) >= 10**-MOST_DIGITS]
    first = max((digits_for(size) for size in sizes), default=0) if max(sizes, default=0) < 1 else 3
    digits = 1 if sizes and min(sizes) >= 100 else max(3, min(first, MOST_DIGITS))
    while digits < MOST_DIGITS and len({f"{value:.{digits}f}" for value in known}) < apart:
        digits += 1
    return ["–" if value is None else _no_minus_zero(f"{value:,.{digits}f}") for value in listed]


def signed(value: float | None, digits: int = 4) -> str:
    """A difference with its sign; 0 has none."""
    return "–" if value is None else _no_minus_zero(f"{value:+.{digits}f}")


def spoken(value: float, interval: Interval | None, *, passes: bool, digits: int = 4) -> str:
    """A difference with its interval; of pass/fail numbers in points, hundredths of the whole."""
    scale, digits, unit = (100.0, 1, " points") if passes else (1.0, digits, "")
    said = f"{signed(scale * value, digits)}{unit}"
    if interval is None:
        return said
    return f"{said} ({ends(interval, digits, scale)})"


def ends(interval: Interval | None, digits: int = 4, scale: float = 1.0) -> str:
    """The two ends of an interval of differences, as in "-0.0100 to +0.0200"; "-" without an interval."""
    return (
        "-"
        if interval is None
        else f"{signed(scale * interval.low, digits)} to {signed(scale * interval.high, digits)}"
    )


def digits_for(margin: float) -> int:
    """Digits after the point with which differences are written next to a margin."""
    return max(0, 2 - math.floor(math.log10(margin))) if margin > 0 else 4


def _no_minus_zero(text: str) -> str:
    return text.lstrip("+-") if not text.strip("+-0.,") else text
