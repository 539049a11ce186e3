"""Parts of a step's loss add up to the step, in layers, bands and queries."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from decomposition.chain import build_lattice
from decomposition.curvature import Diagonalised
from decomposition.scores.gradients import loss_gradients
from decomposition.scores.scorers import scorer, scorers_of
from decomposition.scores.spectral import SpectralScorer
from tests.tiny import tiny_problem


@pytest.mark.parametrize(("group", "axis"), [("layers", "block"), ("bands", "band")])
def test_contributions_and_remainder_sum_to_the_total(
    tiny: xr.DataTree, group: str, axis: str
) -> None:
    parts = tiny[f"/where/{group}"].to_dataset().sel(ci_bound="estimate")
    summed = parts["contribution"].sum(axis) + parts["remainder"]
    np.testing.assert_allclose(summed, parts["total"], atol=1e-12)


def test_swapped_one_after_the_other_nothing_remains(tiny: xr.DataTree) -> None:
    for group in ("layers", "bands"):
        remainder = tiny[f"/where/{group}"]["remainder"].sel(ci_bound="estimate")
        np.testing.assert_allclose(remainder, 0.0, atol=1e-12)


def test_query_drops_average_to_the_drop_of_the_first_base_model(tiny: xr.DataTree) -> None:
    drops = tiny["/where/queries"]["drop"].sel(ci_bound="estimate").mean("query")
    levels = tiny["/base_models"]["level"].sel(base_model=0, protocol="tuned")
    chain = ["hessian", "ggn", "block_ggn", "ekfac", "kfac"]
    expected = -np.diff([float(levels.sel(rung=rung)) for rung in chain])
    np.testing.assert_allclose(drops, expected, atol=1e-12)


def test_parts_of_a_partition_of_the_basis_add_up_to_the_prediction() -> None:
    problem = tiny_problem()
    masks = np.random.default_rng(0).random((9, problem.num_examples)) < 0.5
    for curvature in build_lattice(problem).values():
        assert isinstance(curvature, Diagonalised)
        rung = scorer(curvature, loss_gradients(problem))
        assert isinstance(rung, SpectralScorer)
        subsets = np.array_split(np.random.default_rng(1).permutation(curvature.size), 4)
        whole = rung.predicted_effects(masks, 1e-2)
        parts = rung.partial_effects(masks, 1e-2, subsets)
        np.testing.assert_allclose(parts.sum(0), whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())


def test_rungs_of_one_basis_share_their_rotated_gradients() -> None:
    problem = tiny_problem()
    gradients = loss_gradients(problem)
    rungs = build_lattice(problem)
    together = scorers_of(rungs, gradients)
    for name, rung in rungs.items():
        alone = scorer(rung, gradients).scores(1e-2)
        np.testing.assert_array_equal(together[name].scores(1e-2), alone)
    assert rungs["ekfac"].basis_key() == rungs["kfac"].basis_key()
    assert rungs["ekfac"].basis_key() != rungs["block_ggn"].basis_key()
