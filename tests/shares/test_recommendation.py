"""The recommendation on planted levels and costs: the cheapest that is not resolved to be worse."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import xarray as xr

from decomposition.results.derived import DERIVED
from decomposition.scores.bootstrap import Draws
from decomposition.scores.levels import Levels
from decomposition.shares.recommendation import can_be_best, recommendation_group

DRAWS, QUERIES, MASKS = 2000, 10, 400
COSTS = {"hessian": 1e9, "ggn": 9e8, "block_ggn": 1e8, "ekfac": 4e6, "kfac": 2e6, "identity": 1e4}
TRUE = {
    "hessian": 0.60,
    "ggn": 0.60,
    "block_ggn": 0.55,
    "ekfac": 0.52,
    "kfac": 0.50,
    "identity": 0.30,
}
"""A planted frontier: everything resolved but H against G."""


def cell(
    levels: Mapping[str, float],
    noise: float = 0.004,
    rules: Mapping[str, Mapping[str, float]] | None = None,
    costs: Mapping[str, float] = COSTS,
    seed: int = 0,
) -> xr.DataTree:
    """A result of one cell: levels with independent draws, costs that lie in building."""
    random = np.random.default_rng((43, seed))
    protocols = {"tuned": dict(levels)} | {p: dict(own) for p, own in (rules or {}).items()}
    nodes = list(levels)
    estimate = np.array([[own[n] for n in nodes] for own in protocols.values()])
    draws = estimate + noise * random.normal(size=(DRAWS, *estimate.shape))
    each = np.eye(len(nodes)) * noise**2
    variance = np.zeros((3, len(protocols), len(nodes), len(nodes)))
    variance[0] = each
    found = Levels(
        tuple(protocols), tuple(nodes), MASKS, Draws(estimate, draws), variance, estimate[None]
    ).dataset()
    found["damping"] = (("protocol", "rung"), np.full(estimate.shape, 0.002))
    counted = [n for n in nodes if n in costs]
    operations = np.zeros((len(counted), 4))
    operations[:, 0] = [costs[n] for n in counted]
    phases = ["build", "decompose", "solve", "score"]
    cost = xr.Dataset(
        {"operations": (("rung", "phase"), operations)}, {"rung": counted, "phase": phases}
    )
    about = xr.Dataset({"queries": ((), QUERIES)})
    return xr.DataTree.from_dict({"/levels": found, "/cost": cost, "/cells": about})


def advice(*cells: xr.DataTree) -> xr.Dataset:
    found = recommendation_group(cells, 0.95)
    assert found is not None
    return found


def test_a_planted_frontier() -> None:
    levels = TRUE | {"ekfac": 0.49}  # K-FAC is cheaper and better
    found = advice(cell(levels | {"ggn": 0.62}))
    frontier = found["rung"].values[found["frontier"].values == 1]
    assert set(frontier) == {"identity", "kfac", "block_ggn", "ggn"}
    assert found.attrs["recommended"] == found.attrs["best"] == "ggn"
    assert found.attrs["resolved"] == 1
    assert found.attrs["better"] == ""
    assert found.attrs["cheaper"] == "kfac"
    assert "450 times cheaper" in found.attrs["sentence"]


def test_the_cheapest_that_is_not_resolved_to_be_worse() -> None:
    found = advice(cell(TRUE | {"hessian": 0.605, "ekfac": 0.602, "kfac": 0.50}))
    assert found.attrs["recommended"] == "ekfac"
    assert found.attrs["best"] == "hessian"
    assert found.attrs["better"] == "hessian"
    assert found.attrs["resolved"] == 0
    assert found.attrs["more_masks"] > 0
    assert "which this size does not resolve" in found.attrs["sentence"]


def test_equal_costs_are_settled_by_the_level() -> None:
    levels = dict.fromkeys(TRUE, 0.5) | {"identity": 0.1, "ekfac": 0.501}
    near = COSTS | {"ekfac": 2.9e6}
    assert advice(cell(levels)).attrs["recommended"] == "kfac"
    assert advice(cell(levels, costs=near)).attrs["recommended"] == "ekfac"
    assert advice(cell(levels | {"kfac": 0.502}, costs=near)).attrs["recommended"] == "kfac"


def test_no_curvature_is_said_where_none_is_resolved_to_help() -> None:
    found = advice(cell(dict.fromkeys(TRUE, 0.5) | {"random": 0.0}))
    assert found.attrs["recommended"] == "identity"
    assert "No curvature is resolved to help" in found.attrs["sentence"]


def test_nothing_is_recommended_where_random_scores_do_as_well() -> None:
    found = advice(cell(dict.fromkeys([*TRUE, "random"], 0.0), noise=0.05))
    assert found.attrs["recommended"] == ""
    assert "not resolved at this size" in found.attrs["sentence"]


def test_a_rule_without_retraining_is_preferred_where_it_does_not_lose() -> None:
    same, less = ({"layer_mean": {n: v - loss for n, v in TRUE.items()}} for loss in (0.0, 0.05))
    kept, dropped = advice(cell(TRUE, rules=same)), advice(cell(TRUE, rules=less))
    assert kept.attrs["rule"] == "layer_mean"
    assert "needs no retraining" in kept.attrs["sentence"]
    assert dropped.attrs["rule"] == "tuned"
    assert "λ = 0.002, chosen on retrained models" in dropped.attrs["sentence"]


def test_the_cheaper_one_comes_with_its_damping() -> None:
    levels = TRUE | {"ekfac": 0.49, "ggn": 0.62}
    found = advice(cell(levels, rules={"mean:1": levels}))
    assert found.attrs["cheaper"] == "kfac"
    assert "K-FAC (no retraining: λ = the mean eigenvalue) loses" in found.attrs["sentence"]


def test_scores_of_unknown_cost_are_told_but_not_recommended() -> None:
    found = advice(cell(TRUE | {"theirs": 0.7}))
    assert found.attrs["recommended"] in ("hessian", "ggn")
    assert "Theirs scores higher by 0.1" in found.attrs["sentence"]


def test_many_cells_tell_where_it_holds_and_the_worst_regret() -> None:
    good = TRUE | {"kfac": 0.612}
    cells = [cell(good, seed=i) for i in range(4)]
    cells.append(cell(TRUE | {"kfac": 0.55}, seed=4))
    found = advice(*cells)
    assert found.attrs["recommended"] == "kfac"
    assert found["holds"].values.tolist() == [1, 1, 1, 1, 0]
    assert int(found["regret"].sel(ci_bound="estimate").argmax("cell")) == 4
    assert "in 4 of 5 cells" in found.attrs["sentence"]


def test_the_set_contains_the_best_as_often_as_it_says() -> None:
    """Ten equal rungs, noise as large as what is drawn: the true best is kept in 95% of studies."""
    random, kept, studies = np.random.default_rng(47), 0, 300
    for _ in range(studies):
        estimate = random.normal(size=10)
        draws = estimate + random.normal(size=(400, 10))
        kept += can_be_best(Draws(estimate, draws))[0] > 0.05
    assert kept / studies > 0.95 - 3 * np.sqrt(0.05 * 0.95 / studies)


def test_a_result_without_costs_has_no_recommendation() -> None:
    one = cell(TRUE)
    old = xr.DataTree.from_dict({"/levels": one["levels"].to_dataset()})
    assert recommendation_group([old], 0.95) is None


def test_every_attribute_is_in_the_schema() -> None:
    group = next(group for group in DERIVED if group.path == "/recommendation")
    known = {attribute.name for attribute in group.attributes}
    assert set(advice(cell(TRUE | {"kfac": 0.599})).attrs) <= known


def test_more_masks_are_counted_for_as_many_comparisons_as_there_are_rungs() -> None:
    """A lead that one comparison alone would resolve still lacks masks among many rungs."""
    noise = 0.004
    lead = 1.8 * np.sqrt(2) * noise  # 1.8 standard errors: one-sided, a single one needs 1.64
    found = advice(cell(TRUE | {"ggn": 0.61, "kfac": 0.61 - lead}, noise))
    assert found.attrs["recommended"] == "kfac"
    assert found.attrs["more_masks"] > 0.3 * MASKS
