"""Damping chosen on masks that do not score it."""

import numpy as np
import pytest

from decomposition.scores.crossfit import (
    at_choice,
    choose,
    fold_lds,
    mask_folds,
    refine,
)
from decomposition.scores.lds import ScoreError, lds, linearise


def curves(best: tuple[int, ...] = (2, 4), dampings: int = 7):
    """Predictions (nodes, D, M, Q) whose noise is least at each node's own setting."""
    random = np.random.default_rng((19, *best))
    truth = random.normal(size=(120, 15))
    noise = random.normal(size=(len(best), dampings, 120, 15))
    distance = np.abs(np.arange(dampings)[None] - np.array(best)[:, None])
    return truth + (0.3 + distance)[..., None, None] * noise, truth


def test_folds_are_balanced_and_seeded() -> None:
    folds = mask_folds(101, 3, seed=(5,))
    np.testing.assert_array_equal(np.sort(np.bincount(folds)), [33, 34, 34])
    np.testing.assert_array_equal(folds, mask_folds(101, 3, seed=(5,)))


def test_tuned_takes_each_nodes_own_optimum() -> None:
    prediction, truth = curves()
    choice = choose(fold_lds(prediction, truth, mask_folds(120)))
    np.testing.assert_array_equal(choice.index, [[2, 4], [2, 4]])
    assert not choice.edge.any()


def test_a_common_protocol_takes_the_references() -> None:
    prediction, truth = curves()
    levels = fold_lds(prediction, truth, mask_folds(120))
    np.testing.assert_array_equal(choose(levels, reference=1).index, [[4, 4], [4, 4]])


def test_the_setting_of_a_fold_ignores_that_fold() -> None:
    levels = np.array([[[0.1, 0.9, 0.0]], [[0.8, 0.2, 0.0]]])
    np.testing.assert_array_equal(choose(levels).index[:, 0], [0, 1])


def test_an_optimum_on_the_edge_is_flagged() -> None:
    prediction, truth = curves(best=(0, 3, 6))
    choice = choose(fold_lds(prediction, truth, mask_folds(120)))
    np.testing.assert_array_equal(choice.edge, [True, False, True])


def test_the_cross_fitted_level_is_the_mean_of_held_out_lds() -> None:
    prediction, truth = curves()
    folds = mask_folds(120, 3)
    levels = fold_lds(prediction, truth, folds)
    choice = choose(levels)
    expected = [np.mean([levels[f, n, choice.index[f, n]] for f in range(3)]) for n in range(2)]
    found = linearise(at_choice(prediction, choice, folds), truth, folds).mean
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_held_out_level_of_pure_noise_is_not_the_best_of_many() -> None:
    random = np.random.default_rng(23)
    truth = random.normal(size=(60, 4))
    prediction = random.normal(size=(1, 200, 60, 4))
    folds = mask_folds(60)
    choice = choose(fold_lds(prediction, truth, folds))
    honest = linearise(at_choice(prediction, choice, folds), truth, folds).mean[0]
    optimistic = lds(prediction, truth).mean.max()
    assert optimistic > 0.15
    assert abs(honest) < 0.15


def test_undefined_settings_are_never_chosen() -> None:
    levels = np.array([[[np.nan, 0.2, 0.1]], [[0.9, 0.2, 0.1]]])
    np.testing.assert_array_equal(choose(levels).index[:, 0], [1, 1])


def test_a_node_without_a_defined_level_is_no_optimum() -> None:
    nothing = np.full((2, 1, 3), np.nan)
    assert not choose(nothing).edge.any()
    with pytest.raises(ScoreError, match="no damping gives ggn an LDS"):
        choose(nothing, reference=0, name="ggn")


def test_refinement_approaches_the_optimum() -> None:
    def quality(damping):
        return -((np.log10(damping) + 1.3) ** 2)

    grid = np.geomspace(1e-4, 1e2, 7)
    found = refine(grid, quality(grid), quality, rounds=3)
    assert found.dampings[found.best] == pytest.approx(10**-1.3, rel=0.05)
    assert not found.edge
    assert (np.diff(found.dampings) > 0).all()


def test_refinement_leaves_an_edge_alone() -> None:
    grid = np.geomspace(1e-2, 1e2, 5)
    found = refine(grid, np.log(grid), np.log)
    assert found.edge
    np.testing.assert_array_equal(found.dampings, grid)


def test_too_few_masks_is_an_error() -> None:
    with pytest.raises(ScoreError, match="2 parts of 3 masks"):
        mask_folds(3, 2)
