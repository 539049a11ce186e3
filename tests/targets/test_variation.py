"""A truth that does not vary with the mask is named, before the work where it can be known."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from decomposition import Problem, Recipe, run
from decomposition.curvature import Curvature, SolveCurvature
from decomposition.errors import DecompositionError
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.supplied import BankFileError, SuppliedBank
from decomposition.scores.bootstrap import bootstrap, resample
from decomposition.scores.crossfit import mask_folds
from decomposition.scores.lds import linearise
from decomposition.targets.functions import TargetError
from decomposition.targets.measurement import measure_supplied
from decomposition.targets.variation import unmoved
from tests.test_ways_out import SETTINGS


def problem(examples: int = 24, trained: bool = False, **recipe: object) -> Problem:
    """P = 26, four queries."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(examples + 4, 3, generator=generator)
    y = (x[:, 0] + 0.5 * torch.randn(examples + 4, generator=generator) > 0).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
        other = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return Problem(
        model,
        nn.CrossEntropyLoss(),
        (x[4:], y[4:]),
        (x[:4], y[:4]),
        Recipe(**{"epochs": 2, "batch_size": 8, **recipe}),  # type: ignore[arg-type]
        initial=other.state_dict() if trained else None,
    )


def halves(count: int, examples: int = 24, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    masks = np.zeros((count, examples), bool)
    for mask in masks:
        mask[random.permutation(examples)[: examples // 2]] = True
    return masks


def saved(path: Path, masks: np.ndarray, losses: np.ndarray) -> Path:
    np.savez(path / "bank.npz", masks=masks, losses=losses)
    return path / "bank.npz"


def notes(result: xr.DataTree) -> list[str]:
    return json.loads(result.attrs["notes"])


# masks that are not distinct


def test_a_bank_of_two_masks_says_nothing(tmp_path: Path) -> None:
    masks = halves(2)[np.arange(20) % 2]
    path = saved(tmp_path, masks, np.random.default_rng(1).random((20, 1, 4)))
    with pytest.raises(BankFileError, match="2 of 20 masks are distinct, and at least 6 must be"):
        run(problem(trained=True), bank=path, settings=SETTINGS, progress=False)


def test_equal_masks_count_as_repeats_of_one(tmp_path: Path) -> None:
    """Six masks with many models each give what the six means give."""
    masks, random = halves(10), np.random.default_rng(2)
    losses, second = 9 + random.random((10, 1, 4)), 9 + random.random((5, 4))
    often = np.sort(random.permutation(np.arange(40) % 10))
    noise = random.normal(size=(40, 1, 4))
    group_mean = np.stack([noise[often == one].mean(0) for one in range(10)])
    np.savez(tmp_path / "few.npz", masks=masks, losses=losses, second_losses=second)
    np.savez(
        tmp_path / "many.npz",
        masks=masks[often],
        losses=losses[often] + noise - group_mean[often],
        second_losses=second[often[:20]],
    )
    few, many = (
        run(problem(trained=True), bank=tmp_path / name, settings=SETTINGS, progress=False)
        for name in ("few.npz", "many.npz")
    )
    for group in ("/attribution", "/shares"):
        for name, values in few[group].data_vars.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(many[group][name], values, rtol=1e-6, atol=1e-9)
    assert many["/bank"].sizes["mask"] == 40
    assert any("10 of 40 masks are distinct" in note for note in notes(many))


def test_a_mask_never_chooses_what_it_scores() -> None:
    """Folds and resamples are over distinct masks."""
    masks = halves(12)[np.arange(60) % 12]
    random = np.random.default_rng(3)
    bank = _memory(masks, random.random((60, 1, 4)))
    found = measure_supplied(problem(trained=True), bank, "loss")
    assert len(found.weights) == len(found.truth) == 12
    assert len(mask_folds(len(found.truth))) == 12


def _memory(masks: np.ndarray, losses: np.ndarray) -> SuppliedBank:
    plan = BankPlan(masks=len(masks), second_order_masks=0)
    base = np.zeros((losses.shape[2], 2))
    return SuppliedBank(plan, masks, None, None, base, "memory", losses, None)


def test_intervals_of_clustered_noise_cover_zero() -> None:
    """Truth and prediction are noise of the distinct masks, met one to thirty times each."""
    given, hits, wrong = problem(trained=True), [], []
    for study in range(100):
        random = np.random.default_rng((5, study))
        often = np.repeat(np.arange(60), random.integers(1, 30, 60))
        masks = halves(60, seed=study)[often]
        of_mask = random.normal(size=(60, 1, 1)) + np.zeros(4)
        losses = 9 + of_mask[often] + 0.1 * random.normal(size=(len(often), 1, 4))
        found = measure_supplied(given, _memory(masks, losses), "loss")
        scores = np.tile(random.normal(size=masks.shape[1]), (4, 1))
        for truth, weights, seen in (
            (found.truth[:, 0], found.weights, hits),
            (losses[:, 0], masks, wrong),
        ):
            prediction = -(weights.astype(float) @ scores.T)
            linear = linearise(prediction[None], truth)
            drawn = resample(*truth.shape, count=100, seed=(study,))
            low, _, high = bootstrap(linear, drawn).interval(0.95)[0]
            seen.append(low <= 0 <= high)
    assert 0.89 <= np.mean(hits) <= 0.99
    assert np.mean(wrong) < 0.6  # the check can see the difference


def test_so_few_examples_that_subsets_repeat_are_counted() -> None:
    tiny = problem(examples=4, batch_size=2)
    found = run(tiny, settings=replace(SETTINGS, masks=40), progress=False)
    assert any("6 of 40 masks are distinct" in note for note in notes(found))
    assert any("6 distinct masks are few" in note for note in notes(found))
    with pytest.raises(TargetError, match="4 of 40 masks are distinct"):
        run(tiny, settings=replace(SETTINGS, masks=40, alpha=0.25), progress=False)
    for target in ("leave_one_out", "pbrf"):
        with pytest.raises(TargetError, match="4 of 4 masks are distinct"):
            run(tiny, settings=replace(SETTINGS, target=target), progress=False)


# measurements that do not vary


NOTHING_MOVES = {"lr": 1e-12}


@pytest.mark.parametrize("target", ["loss", "margin", "leave_one_out"])
@pytest.mark.parametrize("randomness", ["shared", "independent"])
@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"epochs": 0}, "Recipe.epochs = 0: no retrained model takes a step"),
        ({"checkpoint": 0}, "Recipe.checkpoint = 0: no retrained model takes a step"),
        (NOTHING_MOVES, "lr = 1e-12 move no model's outputs .* rounding of float32"),
    ],
)
def test_retraining_that_moves_nothing_is_refused_before_it(
    target: str, randomness: str, recipe: dict, words: str, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, target=target, randomness=randomness)
    with pytest.raises(TargetError, match=words):
        run(problem(**recipe), tmp_path, settings=settings, progress=False)
    assert not list(tmp_path.rglob("*.chunk"))


def test_what_float32_cannot_resolve_is_resolved_in_float64() -> None:
    found = run(problem(**NOTHING_MOVES, dtype="float64"), settings=SETTINGS, progress=False)
    assert np.isfinite(found["/attribution"]["lds_mean"]).all()


def test_where_only_the_whole_data_is_at_rest_models_are_retrained() -> None:
    """The trained model has not moved, its retrained ones do: tried, and not refused."""
    x = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]]).repeat(4, 1)
    y = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]]).repeat(4, 1)
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    query = (torch.tensor([[0.5], [2.0]]), torch.tensor([[1.0], [0.5]]))
    rest = Problem(model, nn.MSELoss(), (x, y), query, Recipe(epochs=2, batch_size=16))
    found = run(rest, settings=SETTINGS, progress=False)
    assert np.isfinite(found["/attribution"]["lds_mean"]).any()


def test_a_start_at_the_trained_parameters_is_noted() -> None:
    one = problem(trained=True)
    followed = replace(one, initial=one.model.state_dict())
    found = run(followed, settings=SETTINGS, progress=False)
    assert any("Problem.initial holds the trained parameters" in note for note in notes(found))
    found = run(one, settings=SETTINGS, progress=False)
    assert not any("Problem.initial" in note for note in notes(found))


@pytest.mark.parametrize("still", [0.25, np.float32(1) + np.array([0, 1e-7], np.float32)])
def test_a_query_that_does_not_vary_is_left_out(still: object, tmp_path: Path) -> None:
    losses = np.random.default_rng(4).random((40, 1, 4)).astype(np.float32)
    losses[:, 0, 2] = np.resize(np.asarray(still, np.float32), 40)
    path = saved(tmp_path, halves(40), losses)
    found = run(problem(trained=True), bank=path, settings=SETTINGS, progress=False)
    lds = found["/attribution"]["lds"]
    assert np.isnan(lds.sel(query=2)).all()
    others = lds.sel(query=[0, 1, 3])
    np.testing.assert_allclose(
        found["/attribution"]["lds_mean"].sel(ci_bound="estimate"), others.mean("query")
    )
    assert any("loss of query 2 is the same for all 40 masks" in note for note in notes(found))


def test_a_bank_that_does_not_vary_is_refused_before_the_work(tmp_path: Path) -> None:
    path = saved(tmp_path, halves(40), np.full((40, 1, 4), 0.5))
    with pytest.raises(BankFileError, match="the measured loss of all 4 queries is the"):
        run(problem(epochs=10**9), bank=path, settings=SETTINGS, progress=False)


def test_a_truth_that_varies_with_one_mask_is_too_little(tmp_path: Path) -> None:
    losses = np.full((40, 1, 4), 0.5)
    losses[7] += 1.0
    path = saved(tmp_path, halves(40), losses)
    with pytest.raises(DecompositionError, match="measured is the same for 20 of 40 masks"):
        run(problem(trained=True), bank=path, settings=SETTINGS, progress=False)


def test_a_rung_whose_predictions_do_not_vary_is_named() -> None:
    def zero(one: Problem) -> Curvature:
        return SolveCurvature(one.num_parameters, lambda v, damping: 0.0 * v)

    found = run(problem(), settings=SETTINGS, extra={"mine": zero}, progress=False)
    levels = found["/attribution"]["lds_mean"]
    assert np.isnan(levels.sel(rung="mine")).all()
    assert np.isfinite(levels.sel(rung="kfac")).all()
    assert any(note.startswith("mine predicts the same for all masks") for note in notes(found))


def test_scores_that_overflow_are_missing_and_named() -> None:
    def huge(one: Problem) -> Curvature:
        return SolveCurvature(one.num_parameters, lambda v, damping: 1e60 * v)

    found = run(problem(), settings=SETTINGS, extra={"mine": huge}, progress=False)
    levels = found["/attribution"]["lds_mean"]
    assert np.isnan(levels.sel(rung="mine")).all()
    assert np.isfinite(levels.sel(rung="kfac")).all()
    assert any("no scores of mine" in note and "overflow" in note for note in notes(found))


def test_rounding_is_told_from_variation() -> None:
    one = np.float32(3.0)
    values = np.full((50, 1, 3), one)
    values[::2, 0, 1] = np.nextafter(one, np.float32(4))
    values[::2, 0, 2] += np.float32(1e-5)
    np.testing.assert_array_equal(unmoved(values), [True, True, False])
    np.testing.assert_array_equal(unmoved(np.stack([values, values], -1)), [True, True, False])
