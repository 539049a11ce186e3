"""Numbers and intervals in words: how they are rounded, and when they are called unresolved."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from decomposition.report.interval import Interval

MINUS = "−"
_DIRECTIONS = "\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """``text`` for any page: control characters, halves of surrogates and orders to turn the
    writing direction around are written out, as ``\\x1b`` and ``\\u202e``.
    """
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def number(value: float, digits: int = 3) -> str:
    """A number to ``digits`` significant digits, with a true minus; "–" for NaN."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else f"{MINUS if value < 0 else ''}∞"
    if value == 0:
        return "0"
    magnitude = abs(value)
    if 1e-3 <= magnitude < 1e5:
        decimals = max(digits - 1 - math.floor(math.log10(magnitude)), 0)
        text = f"{magnitude:.{decimals}f}"
    else:
        mantissa, exponent = f"{magnitude:.{digits - 1}e}".split("e")
        text = f"{mantissa}·10{superscript(int(exponent))}"
    return MINUS + text if value < 0 else text


def fixed(value: float, decimals: int = 3) -> str:
    """A number to a fixed number of decimals, with a true minus; "–" for NaN."""
    if not math.isfinite(value):
        return "–"
    text = f"{abs(value):.{decimals}f}"
    return MINUS + text if value < 0 and float(text) != 0 else text


def signed(value: float, decimals: int = 3) -> str:
    """A change: ``fixed`` with a plus where it is an increase."""
    text = fixed(value, decimals)
    return f"+{text}" if value > 0 and float(f"{value:.{decimals}f}") != 0 else text


def span(value: Interval, decimals: int = 3) -> str:
    """``estimate [lower, upper]``; the estimate alone where it is exact.

    A wide interval takes decimals away: half of its width keeps two digits.
    """
    if not value.known:
        return "–"
    half = (value.upper - value.lower) / 2
    if half > 0 and math.isfinite(half):
        decimals = max(0, min(decimals, 1 - math.floor(math.log10(half))))
    if value.exact:
        return fixed(value.estimate, decimals)
    bounds = f"{fixed(value.lower, decimals)}, {fixed(value.upper, decimals)}"
    return f"{fixed(value.estimate, decimals)} [{bounds}]"


def percent(value: Interval) -> str:
    """A share in per cent with its interval."""
    if not value.known:
        return "–"
    scaled = Interval(*(100 * v for v in (value.lower, value.estimate, value.upper)))
    if scaled.exact:
        return f"{fixed(scaled.estimate, 1)}%"
    bounds = f"{fixed(scaled.lower, 0)}, {fixed(scaled.upper, 0)}"
    return f"{fixed(scaled.estimate, 0)}% [{bounds}]"


def joined(parts: list[str]) -> str:
    """a, b and c."""
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def plural(count: int, noun: str) -> str:
    """``1 mask``, ``2 masks``, with thousands separated."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def isolated(name: object, limit: int = 80) -> str:
    """A user's text inside a sentence: cut to ``limit``, its writing direction kept to itself."""
    text = "".join(c if c.isprintable() or c in _DIRECTIONS else "�" for c in str(name))
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return text if text.isascii() else f"\u2068{text}\u2069"


def some(names: list[str], most: int = 5) -> str:
    """All of a few names; of many the first two, and how many more."""
    if len(names) <= most:
        return joined(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more"


def without_folders(name: str) -> str:
    """A problem's name without the folders of its file."""
    return re.sub(r"^(\w+:)?[^?,]*/", lambda found: found[1] or "", name)


def middle_cut(text: str, limit: int) -> str:
    """At most ``limit`` characters: what stands at both ends, which tells names apart."""
    start = limit // 2
    return text if len(text) <= limit else f"{text[:start]}…{text[start + 1 - limit :]}"


def telling_parts(names: Sequence[str]) -> list[str]:
    """Names without the parts between commas that all of them have."""
    parts = [name.strip(_DIRECTIONS).split(", ") for name in names]
    common = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    own = [", ".join(part for part in one if part not in common) for one in parts]
    return [isolated(one) if one else name for one, name in zip(own, names, strict=True)]


def superscript(exponent: int) -> str:
    """An exponent in raised digits."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
