"""What the command line says of a result: a few lines for people, JSON for scripts."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import xarray as xr

from decomposition.report.names import step_label
from decomposition.report.result import Result, labels
from decomposition.report.verdict import sentences
from decomposition.report.wording import fixed, visible

VERDICTS = 2
"""Sentences of the verdict: what is lost, and the step to blame."""
LISTED = ("level", "drop", "share", "total")
"""Arrays of /shares that scripts are given."""


def closing_lines(tree: xr.DataTree) -> list[str]:
    """Verdict, recommendation, and what would resolve more, as far as the result tells."""
    result = Result(tree)
    said = sentences(result)[:VERDICTS]
    use = result.group("/recommendation")
    if use is not None:
        said.append(str(use.attrs["sentence"]))
    more = what_more(result)
    return [visible(line) for line in (*said, *([more] if more else []))]


def what_more(result: Result) -> str:
    """What more retrained models would buy; "" where the result does not tell."""
    data = result.group("/shares")
    if data is None or result.many or "tuned" not in result.protocols:
        return ""
    verdict = json.loads(data.attrs.get("verdict", "{}")).get("tuned", {})
    masks = _masks(result)
    if verdict and not verdict["resolved"] and verdict["more_masks"]:
        more = _rounded(verdict["more_masks"])
        option = f" (--masks {masks + more})" if masks else ""
        return f"About {more:,} more masks{option} would resolve which step loses most."
    if verdict and not verdict["resolved"]:
        return (
            "More masks alone would not resolve which step loses most: more queries, or several "
            "base models (--base-seeds 3), may."
        )
    return _narrower(result, str(verdict.get("candidate", "")), masks)


def _masks(result: Result) -> int:
    data = result.group("/levels")
    return 0 if data is None else int(data.attrs["masks"])


def _rounded(count: int) -> int:
    """Up to two digits."""
    scale = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / scale) * scale


def _narrower(result: Result, step: str, masks: int) -> str:
    """How twice the masks would narrow the interval of a step's drop."""
    width = result.array("/shares/resolution", "width")
    if width is None or not masks or step not in labels(width, "chain_step"):
        return ""
    curve = width.sel(protocol="tuned", chain_step=step)
    now, then = (
        float(np.interp(np.log(count), np.log(curve["masks"].values), curve.values)) / 2
        for count in (masks, 2 * masks)
    )
    if fixed(now) == fixed(then):  # queries, not masks, set the interval
        return (
            f"More masks would not narrow what the step {step_label(step)} loses, ± {fixed(now)}: "
            "more queries, or several base models (--base-seeds 3), may."
        )
    return (
        f"Twice the retrained models (--masks {2 * masks}) would narrow what the step "
        f"{step_label(step)} loses from ± {fixed(now)} to ± {fixed(then)}."
    )


def as_json(tree: xr.DataTree) -> str:
    """Verdict, levels, shares and recommendation of every cell, for scripts.

    Intervals are lists of lower bound, estimate and upper bound; what is not known is null.
    """
    result = Result(tree)
    found: dict[str, Any] = {"title": str(result.attr("title") or result.attr("problem"))}
    if result.many:
        found["cells"] = [{"cell": one.name, **_shares(one)} for one in result.each()]
    else:
        found |= _shares(result)
    use = result.group("/recommendation")
    found["recommendation"] = None if use is None else _plain(dict(use.attrs))
    return json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False)


def _shares(one: Result) -> dict[str, Any]:
    """Verdict by protocol, and arrays as nested tables: dimension by dimension, name → value."""
    data = one.group("/shares")
    if data is None:
        return {"verdict": None}
    verdict = json.loads(data.attrs.get("verdict", "{}"))
    if one.cell is not None:
        verdict = verdict.get(str(one.cell), {})
    lds = data.sel(metric="lds") if "metric" in data.dims else data
    tables = {name: _nested(lds[name]) for name in LISTED if name in lds}
    return {"said": sentences(one), "verdict": _plain(verdict), **tables}


def _nested(array: xr.DataArray) -> Any:
    if not array.dims or array.dims == ("ci_bound",):
        return _plain(array.values.tolist())
    first = str(array.dims[0])
    return {str(label): _nested(array.sel({first: label})) for label in array[first].values}


def _plain(value: Any) -> Any:
    """What JSON can hold: null for what is not finite."""
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
