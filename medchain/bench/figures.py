"""How figures are written for people: as many digits as mean something. Knows no result."""

from __future__ import annotations

import math
from typing import Final

DIGITS: Final = 3
"""Machines drift by 15 to 20 %: further digits would only look exact."""
LEAST: Final = 1e-6
MOST: Final = 1e15
"""Outside of these a number is written with its power of ten."""


def number(value: float) -> str:
    """Return a number with three digits that count: `1,234,567`, `12.3`, `0.00123`; `–` where there is none."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if not LEAST <= abs(value) < MOST:
        return f"{value:.2e}"
    places = DIGITS - 1 - math.floor(math.log10(abs(value)))
    text = f"{round(value, places):,.{max(0, places)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain(text: str) -> str:
    """Return a text out of a file as it can be shown: signs that no page, plot or terminal may hold become spaces."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def quantity(value: float, unit: str) -> str:
    """Return a number with its unit: `12.3 us`, `40 %`; a ratio, whose unit is `x`, without a space."""
    return f"{number(value)}{'' if unit in ('x', '') else ' '}{unit}"


def share(value: float) -> str:
    """Return a share of one in percent: `75 %`; below ten percent with a digit more."""
    percent = value * 100
    return "–" if not math.isfinite(percent) else f"{percent:.0f} %" if abs(percent) >= 10 else f"{percent:.1f} %"


def change(factor: float) -> str:
    """Return by how much something changed, from the factor: `+12 %`, `-3.4 %`; beyond doubling the factor itself."""
    if not math.isfinite(factor) or factor <= 0:
        return "–"
    if factor >= 2 or factor <= 0.5:
        return f"x{number(factor)}"
    percent = (factor - 1) * 100
    text = f"{percent:+.0f} %" if abs(percent) >= 10 else f"{percent:+.1f} %"
    return "0 %" if text in ("+0.0 %", "-0.0 %") else text
