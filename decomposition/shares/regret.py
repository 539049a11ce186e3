"""What choosing λ without retrained models costs: regret = level(tuned) − level(other).

``tuned`` gives every rung the λ that retrained models prefer (on masks that do not score it). A
rule (``scores.rules``) says λ from the rung alone; a common protocol lets the Hessian's optimum say
it for all rungs. Resamples are paired, over cells too, so that an interval is that of the
difference. A negative regret is possible: the tuned λ is chosen on half of the masks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.names import BASELINES, CHAIN, CI_BOUNDS, rung_name
from decomposition.scores.bootstrap import Draws, mean_over_cells
from decomposition.scores.levels import Levels, read_levels, shared_protocols
from decomposition.scores.protocols import PROTOCOLS, TUNED
from decomposition.scores.rules import damping_rules

CLOSE = 0.02
"""LDS below which a regret is called small, if its whole interval is."""
SCALING = ("ekfac", "kfac")
"""Rungs that can be had at any size, for which rules are made."""


def regret_group(trees: Sequence[xr.DataTree], level: float) -> xr.Dataset | None:
    """``/regret`` of every protocol but ``tuned``, on every rung that all cells have.

    Args:
        trees: of ``pipeline.compute_cell``.
        level: coverage of the intervals.

    Returns:
        None where a cell has no levels under ``tuned``, or nothing beside it. The attribute
        ``sentences`` is JSON: rule → what it costs, in words.
    """
    cells = read_levels(trees)
    if cells is None or not all(TUNED in one.protocols for one in cells):
        return None
    first = cells[0]
    protocols = [protocol for protocol in shared_protocols(cells) if protocol != TUNED]
    nodes = [n for n in first.nodes if n not in BASELINES and all(n in c.nodes for c in cells)]
    if not protocols or not nodes:
        return None
    found = [[_gap(one, protocol, nodes) for one in cells] for protocol in protocols]
    regret = np.array([[one.interval(level) for one in row] for row in found])
    mean = np.array([mean_over_cells(row).interval(level) for row in found])
    data = xr.Dataset(
        {
            "regret": (("protocol", "cell", "rung", "ci_bound"), regret),
            "mean": (("protocol", "rung", "ci_bound"), mean),
        },
        {
            "protocol": protocols,
            "cell": np.arange(len(cells)),
            "rung": nodes,
            "ci_bound": list(CI_BOUNDS),
        },
    )
    rules = [protocol for protocol in protocols if protocol not in PROTOCOLS]
    sentences = {rule: regret_sentence(data, rule) for rule in rules}
    data.attrs["sentences"] = json.dumps(sentences, ensure_ascii=False)
    return data


def _gap(levels: Levels, protocol: str, nodes: Sequence[str]) -> Draws:
    return levels.of(TUNED, nodes).minus(levels.of(protocol, nodes))


def regret_sentence(data: xr.Dataset, rule: str) -> str:
    """What a rule costs: on the rungs that scale (EK-FAC, K-FAC), and where it costs most.

    Of many cells the mean is told, and in how many the whole interval lies below ``CLOSE``.

    Args:
        data: of ``regret_group``, with its cells.
        rule: one of its protocols.
    """
    rungs = [rung for rung in CHAIN if rung in data["rung"]]
    every = data.sel(protocol=rule, rung=rungs).transpose("rung", "cell", "ci_bound")
    cells, mean = every["regret"].values, every["mean"].values
    label, count = damping_rules(rule)[rule].label, cells.shape[1]
    known = [i for i in range(len(rungs)) if np.isfinite(cells[i, :, 1]).all()]
    if not known:
        return f"{label} is defined for no rung of the chain"
    worst = max(known, key=lambda i: mean[i, 1])
    told = [i for i in known if rungs[i] in SCALING] or [worst]
    said = []
    for i in told:
        close = int((cells[i, :, 2] < CLOSE).sum())
        within = "" if count == 1 else f" (below {CLOSE:g} in {close} of {count} cells)"
        said.append(f"{_told(mean[i])} on {rung_name(rungs[i])}{within}")
    if worst not in told:
        most = "" if count == 1 else f" (at most {float(cells[worst, :, 1].max()):.2f})"
        said.append(f"{_told(mean[worst])} on the {rung_name(rungs[worst])}, its worst{most}")
    over = "" if count == 1 else " in the mean"
    return f"{label} needs no retraining; LDS lost by it{over}: {_listed(said)}"


def _told(interval: Float[np.ndarray, " 3"]) -> str:
    lower, estimate, upper = (f"{value:.3f}".replace("-", "−") for value in interval)
    return f"{estimate} [{lower}, {upper}]"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
