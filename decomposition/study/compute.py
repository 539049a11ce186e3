"""What is computed about one cell: levels with their resamples, and the errors beside them.

A cell keeps estimates and resamples of its levels, not shares or verdicts: those are made when
cells are combined, so that a question about all of them finds the pairing intact. Every cell with
as many masks and queries has the same resamples, drawn from the same seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from decomposition.base_model import BaseModel, Clock, prepare
from decomposition.chain import CHAIN
from decomposition.chain.paper_protocol import ladder_rungs
from decomposition.evaluation import mean_loss, outputs_on
from decomposition.losses import CrossEntropy
from decomposition.problem import Problem
from decomposition.scores import attribution as scores
from decomposition.scores.bootstrap import Draws
from decomposition.scores.gradients import Gradients
from decomposition.scores.levels import joint_levels
from decomposition.scores.scorer import effects_over
from decomposition.study.cell import Cell
from decomposition.study.distances import frobenius_errors, solution_errors

REFERENCE = "hessian"


def compute_cell(cell: Cell, folder: Path | None) -> xr.DataTree:
    """Train, build, retrain (or find in ``folder``/bank what is retrained) and score one cell.

    Returns:
        /levels: estimate and draws (protocol, rung) of the LDS, and the noise ceiling's;
        /dampings: the same at every damping of the grid under ``equal``; /errors: Frobenius
        errors and shares, misaligned solutions, dampings, losses. No clock and no host enters:
        the same cell gives the same bytes.
    """
    extra = ladder_rungs(cell.seed) if cell.ladder else None
    base = prepare(cell.problem(), folder, extra, cell.settings, Clock(), progress=False)
    design = scores.Design.of(base, cell.settings, REFERENCE)
    scored = scores.score(base, design, detailed=False, progress=False)
    levels = scores.combine([scored], design)
    ceiling = scores.ceiling_of(base, design)
    found = _draws(levels.draws, ("protocol", "rung"))
    found = found.assign_coords(protocol=list(levels.protocols), rung=list(levels.nodes))
    if ceiling is not None:
        for name, draws in (("ceiling", ceiling.ceiling), ("reliability", ceiling.reliability)):
            found[name] = ((), float(draws.estimate))
            found[f"{name}_draws"] = ("draw", draws.draws.astype(np.float32))
    return xr.DataTree.from_dict(
        {
            "/levels": found,
            "/dampings": _at_every_damping(base, design),
            "/errors": _errors(base, scored.selection.dampings, cell.settings.negative),
        }
    )


def _draws(draws: Draws, dims: tuple[str, ...]) -> xr.Dataset:
    return xr.Dataset(
        {
            "estimate": (dims, draws.estimate),
            "draws": (("draw", *dims), draws.draws.astype(np.float32)),
        }
    )


def _at_every_damping(base: BaseModel, design: scores.Design) -> xr.Dataset:
    """LDS of the chain's rungs at one λ for all, at every λ of the grid."""
    assert base.measured is not None
    settings, measured = design.settings, base.measured
    multipliers = settings.multipliers()
    dampings = scores.grids_of(base, settings, REFERENCE)["equal"].settings.tolist()
    effects = np.stack(
        [
            effects_over(base.scorers[rung], measured.masks, dampings, settings.negative)
            for rung in CHAIN
        ],
        axis=1,
    )
    names = [f"{m:g}" for m in multipliers]
    levels = joint_levels([effects], [measured.mean], design.folds, design.weights, names, CHAIN)
    data = _draws(levels.draws, ("multiplier", "chain_rung"))
    return data.assign_coords(multiplier=multipliers, chain_rung=list(CHAIN))


def _errors(
    base: BaseModel, dampings: Mapping[str, Mapping[str, float]], negative: str
) -> xr.Dataset:
    names, protocols = list(base.scorers), list(dampings)
    steps = [step for step in base.split if step != "cross_term"]
    split = {step: float(values.mean()) for step, values in base.split.items()}
    total = sum(split.values())
    frobenius = frobenius_errors(base.rungs)
    assert isinstance(base.gradients, Gradients)
    solutions = solution_errors(base.rungs, base.gradients.query, dampings, negative)
    data = xr.Dataset(
        {
            "frobenius_share": (
                "frobenius_step",
                [split[step] / total if total else np.nan for step in (*steps, "cross_term")],
            ),
            "frobenius_error": ("rung", [frobenius.get(name, np.nan) for name in names]),
            "inverse_error": (
                ("protocol", "rung"),
                [[solutions[p].get(name, np.nan) for name in names] for p in protocols],
            ),
            "damping": (("protocol", "rung"), [[dampings[p][n] for n in names] for p in protocols]),
        },
        {"frobenius_step": [*steps, "cross_term"], "rung": names, "protocol": protocols},
    )
    data["parameters"] = ((), base.problem.num_parameters)
    for name, value in _losses(base.problem).items():
        data[name] = ((), value)
    return data


def _losses(problem: Problem) -> dict[str, float]:
    """Mean loss on both sets; share of queries (of their labelled positions) whose largest output
    is the label, if classes."""
    found = {f"{split}_loss": mean_loss(problem, split) for split in ("train", "query")}
    y = problem.query[1]
    if not y.is_floating_point():
        outputs = outputs_on(problem, "query").unflatten(1, problem.output_shape)
        right = outputs.argmax(1) == y
        if y.ndim > 1 and isinstance(problem.query_loss, CrossEntropy):
            right = right[y != problem.query_loss.ignore_index]
        found["query_accuracy"] = float(right.double().mean())
    return found
