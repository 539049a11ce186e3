"""LDS along the chain: from the noise ceiling over the exact Hessian down to K-FAC."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from decomposition.report.figures.canvas import axes_or_new, beside, report_style, say_missing
from decomposition.report.palette import MUTED, rung_label
from decomposition.report.study import PROTOCOLS, STEP_LABELS, Interval, Study, interval, labels
from decomposition.report.wording import fixed, signed
from decomposition.results.schema import BASELINES, CHAIN, STEPS


def levels(study: Study, protocol: str) -> dict[str, Interval]:
    """Row of the waterfall → LDS: ``ceiling``, the chain's rungs, the baselines; known ones only.

    A baseline's LDS does not depend on λ: without a level of its own any value of the grid serves.
    """
    rows: dict[str, Interval] = {}
    ceiling = study.array("/attribution", "ceiling")
    if ceiling is not None:
        rows["ceiling"] = interval(ceiling)
    level = study.array("/shares", "level")
    if level is not None and protocol in labels(level, "protocol"):
        here = [r for r in (*CHAIN, *BASELINES) if r in labels(level, "rung")]
        rows |= {r: interval(level, protocol=protocol, rung=r) for r in here}
    mean = study.array("/attribution", "lds_mean")
    if mean is not None:
        for rung in (r for r in BASELINES if r in labels(mean, "rung") and r not in rows):
            known = mean.sel(rung=rung).dropna("damping")
            if known.sizes["damping"]:
                rows[rung] = interval(known.isel(damping=0))
    return {name: value for name, value in rows.items() if value.known}


def plot_waterfall(tree: xr.DataTree, protocol: str = "equal", ax: Axes | None = None) -> Axes:
    """Floating bars from rung to rung: what each step takes from the LDS, with intervals."""
    study = Study(tree)
    with report_style():
        ax = axes_or_new(ax)
        rows = levels(study, protocol)
        if not set(rows) & set(CHAIN):
            return say_missing(ax, "no LDS along the chain in this result")
        drops = _drops(study, protocol)
        floor = min(0.0, *(v.lower for v in rows.values() if np.isfinite(v.lower)))
        for y, (name, value) in enumerate(rows.items()):
            _row(ax, y, name, value, rows, drops, study)
        ax.set_yticks(range(len(rows)), [_label(name) for name in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        top = max(v.upper if np.isfinite(v.upper) else v.estimate for v in rows.values())
        ax.set_xlim(floor - 0.02 if floor < 0 else 0.0, 1.32 * max(0.05, top))
        ax.set_xticks([tick for tick in ax.get_xticks() if floor - 0.02 <= tick < 1.01])
        ax.set_xlabel("LDS (mean rank correlation over queries)")
        ax.set_title(f"LDS by rung, {PROTOCOLS.get(protocol, protocol)}")
        ax.grid(axis="y", visible=False)
        ax.tick_params(axis="y", length=0)
    return ax


def _row(
    ax: Axes,
    y: int,
    name: str,
    value: Interval,
    rows: dict[str, Interval],
    drops: dict[str, Interval],
    study: Study,
) -> None:
    style = study.styles.get(name)
    color, marker = (style.color, style.marker) if style else (MUTED, "|")
    names = list(rows)
    before = names[y - 1] if y and name in CHAIN else None
    if before is not None:
        start = rows[before].estimate
        ax.barh(y, value.estimate - start, left=start, height=0.62, color=color, alpha=0.35)
        ax.plot([start, start], [y - 1, y + 0.31], color=MUTED, linewidth=0.8)
    elif name in BASELINES:
        ax.barh(y, value.estimate, height=0.42, color=color, alpha=0.25)
    error = [[value.estimate - value.lower], [value.upper - value.estimate]]
    if np.isfinite(error).all():
        ax.errorbar(value.estimate, y, xerr=np.abs(error), color=color, capsize=2.5, linewidth=1.2)
    ax.plot(value.estimate, y, marker=marker, color=color, markersize=6)
    right = max(value.upper if np.isfinite(value.upper) else value.estimate, value.estimate)
    if before is not None:
        right = max(right, rows[before].estimate)
    drop = drops.get(name)
    change = f" ({signed(-drop.estimate)})" if drop is not None and drop.known else ""
    beside(ax, right, y, f"{fixed(value.estimate)}{change}")


def _drops(study: Study, protocol: str) -> dict[str, Interval]:
    found: dict[str, Interval] = {}
    drop, premise = study.array("/shares", "drop"), study.array("/shares", "premise")
    if premise is not None and protocol in labels(premise, "protocol"):
        found["hessian"] = interval(premise, protocol=protocol)
    if drop is None or "lds" not in labels(drop, "metric"):
        return found
    for rung, step in zip(CHAIN[1:], STEPS, strict=True):
        if step in labels(drop, "step") and protocol in labels(drop, "protocol"):
            found[rung] = interval(drop, metric="lds", protocol=protocol, step=step)
    return found


def _label(name: str) -> str:
    if name == "ceiling":
        return "noise ceiling"
    if name in CHAIN[1:]:
        return f"{rung_label(name)}\n{STEP_LABELS[STEPS[CHAIN.index(name) - 1]]}"
    return f"{rung_label(name)}\npremise gap" if name == "hessian" else rung_label(name)
