"""One path: whatever form the rungs take, a run has the same groups, numbers and settings.

Forms are forced by the memory that a run is given: with none, H is known by its products and the
GGN by its Gram matrix or its products, on either side of P = N·C.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
import xarray as xr
from torch import nn

from decomposition import Problem, Recipe, Settings, run
from decomposition.chain import fisher_rungs
from decomposition.chain.paper_protocol import ladder_rungs
from decomposition.curvature import Curvature
from decomposition.curvature.low_rank import leading_eigenpairs
from decomposition.curvature.products import ggn_product
from decomposition.names import CHAIN, LATTICE
from decomposition.problems.networks import mlp
from decomposition.scores.protocols import PROTOCOLS
from decomposition.scores.rules import damping_rules
from tests import general
from tests.cases import classification

NONE, KRYLOV = 1e-6, 400
"""GiB: nothing dense fits. Steps that are enough to solve H at every damping."""
SETTINGS = Settings(
    masks=24,
    second_order_masks=8,
    resamples=100,
    damping_low=1e-1,
    damping_high=1e2,
    damping_points=4,
    lattice=False,
    krylov_steps=KRYLOV,
)
RULES = tuple(damping_rules(SETTINGS.rules))
EXACT = ("/spectral_error/", "/policies", "/eigenvalue_error")
"""Groups that take the eigenvectors of H, and what is made of them."""


def with_recipe(problem: Problem) -> Problem:
    recipe = Recipe(lr=0.1, epochs=8, batch_size=8, dtype="float64")
    return replace(problem, recipe=recipe)


def few_parameters() -> Problem:
    """P = 43 < N·C = 72."""
    return classification(mlp((4, 5, 3), nn.Tanh, 0))


def many_parameters() -> Problem:
    """P = 115 > N·C = 36: the GGN through its Gram matrix."""
    return classification(mlp((4, 14, 3), nn.Tanh, 0), n=12)


def convolutional() -> Problem:
    """With a normalisation whose exact block stands in."""
    return general.cnn()


PROBLEMS: dict[str, Callable[[], Problem]] = {
    one.__name__: one for one in (few_parameters, many_parameters, convolutional, general.tied)
}


@cache
def trained(name: str) -> Problem:
    return with_recipe(PROBLEMS[name]()).trained()


@cache
def both(name: str, settings: Settings = SETTINGS) -> tuple[xr.DataTree, xr.DataTree]:
    """The same run with dense matrices and without any."""
    problem = trained(name)
    return (
        run(problem, settings=settings, progress=False, memory=8.0),
        run(problem, settings=settings, progress=False, memory=NONE),
    )


def paths(tree: xr.DataTree) -> set[str]:
    return {node.path for node in tree.subtree if node.path != "/"}


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_groups_are_the_same_but_for_those_of_eigenvectors(name: str) -> None:
    dense, free = map(paths, both(name))
    assert not free - dense
    missing = dense - free - {"/where/queries", "/prediction"}
    assert all(path.startswith(EXACT) for path in missing), missing


@pytest.mark.parametrize("protocol", ["equal", "relative", "tuned"])
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_levels_are_the_same_under_every_protocol(name: str, protocol: str) -> None:
    """Up to what Krylov spaces leave open (ranks of a few near ties). Tuned λ lie between the few
    grid points here, which rungs without a basis do not leave: they agree within the interval."""
    dense, free = (tree["shares"]["level"].sel(protocol=protocol) for tree in both(name))
    gap = abs(dense - free.sel(rung=dense["rung"])).sel(rung=list(CHAIN))
    width = dense.sel(ci_bound="upper") - dense.sel(ci_bound="lower")
    allowed = width if protocol == "tuned" else 0.02
    assert (gap.sel(ci_bound="estimate") <= allowed).all(), gap


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_curves_are_the_same_rung_by_rung(name: str) -> None:
    dense, free = (tree["attribution"]["lds"] for tree in both(name))
    np.testing.assert_allclose(dense["damping"], free["damping"], rtol=1e-9)
    for rung in ("ggn", "block_ggn", "ekfac", "kfac", "identity"):
        gap = abs(dense.sel(rung=rung).values - free.sel(rung=rung).values)
        assert np.nanmax(gap) < 0.03, rung


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_every_protocol_is_there(name: str) -> None:
    for tree in both(name):
        assert tuple(tree["shares"]["protocol"].values) == (*PROTOCOLS, *RULES)
        level = tree["shares"]["level"].sel(protocol="layer_mean", ci_bound="estimate")
        assert np.isfinite(level.sel(rung=["ekfac", "kfac"])).all()


@pytest.mark.parametrize("name", list(PROBLEMS))
def test_steps_of_the_squared_error_agree_within_their_intervals(name: str) -> None:
    dense, free = (
        tree["shares"]["drop"].sel(metric="frobenius_squared", protocol="equal")
        for tree in both(name)
    )
    truth = dense.sel(ci_bound="estimate")
    slack = 1.0 * (free.sel(ci_bound="upper") - free.sel(ci_bound="lower"))
    gap = abs(free.sel(ci_bound="estimate") - truth)
    assert (gap <= slack + 1e-9 * abs(truth).max()).all()


@pytest.mark.parametrize(("group", "axis"), [("layers", "block"), ("bands", "band")])
def test_a_loss_is_localised_alike_wherever_rungs_have_parts(group: str, axis: str) -> None:
    dense, free = (tree[f"where/{group}"]["contribution"] for tree in both("many_parameters"))
    assert "eigenvalues" in free["step"]
    shared = dense.sel(step=free["step"].values, ci_bound="estimate")
    np.testing.assert_array_equal(free[axis], dense[axis])
    np.testing.assert_allclose(free.sel(ci_bound="estimate"), shared, atol=0.02)


def test_what_iteration_leaves_out_is_said() -> None:
    dense, free = (tree.attrs["notes"] for tree in both("many_parameters"))
    assert "no loss is told by bands of the spectrum" in free
    assert "no loss is told by bands of the spectrum" not in dense


def _baseline(tree: xr.DataTree) -> np.ndarray:
    """Intervals of a score that no form of a rung touches: they show masks and resamples."""
    return tree["attribution"]["lds_mean"].sel(rung="identity").values


def _hessian(tree: xr.DataTree) -> np.ndarray:
    return tree["attribution"]["lds_mean"].sel(rung="hessian", ci_bound="estimate").values


OBSERVED: dict[str, tuple[dict, Callable[[xr.DataTree], object]]] = {
    "target": ({"target": "margin"}, lambda t: t["attribution"].attrs["target"]),
    "masks": ({"masks": 30}, lambda t: t["bank"].sizes["mask"]),
    "alpha": ({"alpha": 0.25}, lambda t: float(t["bank"]["masks"].mean())),
    "repeats": ({"repeats": 2}, lambda t: t["bank"].sizes["repeat"]),
    "randomness": ({"randomness": "independent"}, _baseline),
    "base_seeds": ({"base_seeds": 2}, lambda t: t["base_models"].sizes["base_model"]),
    "second_order_masks": ({"second_order_masks": 10}, lambda t: t["bank"].sizes["second_mask"]),
    "leave_one_out_examples": (
        {"target": "leave_one_out", "leave_one_out_examples": 9},
        lambda t: t["bank"].sizes["mask"],
    ),
    "pbrf_damping": (
        {"target": "pbrf", "pbrf_damping": 20.0, "leave_one_out_examples": 8},
        lambda t: round(float(t["attribution"].attrs["pbrf_damping"]), 6),
    ),
    "also": (
        {"also": "kpsvd,cg:3"},
        lambda t: " ".join(sorted(t["attribution"]["rung"].values)),
    ),
    "lattice": ({"lattice": True}, lambda t: "orders" in t["shares"].children),
    "attribution": ({"attribution": False}, lambda t: "attribution" in t.children),
    "leading": ({"leading": 1}, lambda t: int(t["spectral_error"]["leading"])),
    "matrix_norms": (
        {"matrix_norms": False},
        lambda t: bool(
            t["spectral_error"]["value"].sel(metric="relative_spectral", rung="kfac").isnull()
        ),
    ),
    "detail": ({"detail": False}, lambda t: {"top", "policies", "bank"} & set(t.children) == set()),
    "negative": ({"negative": "clip"}, _hessian),
    "inversion": (
        {"inversion": "factored"},
        lambda t: t["attribution"]["lds_mean"].sel(rung="kfac", ci_bound="estimate").values,
    ),
    "rules": (
        {"rules": "fixed:0.5"},
        lambda t: t["levels"]["estimate"].isel(protocol=-1).sel(rung=["ggn", "kfac"]).values,
    ),
    "damping_low": ({"damping_low": 1.0}, lambda t: t["attribution"]["damping"].values),
    "damping_high": ({"damping_high": 10.0}, lambda t: t["attribution"]["damping"].values),
    "damping_points": ({"damping_points": 3}, lambda t: t["attribution"]["damping"].values),
    "resamples": ({"resamples": 150}, _baseline),
    "level": ({"level": 0.5}, _baseline),
    "seed": ({"seed": 3}, _baseline),
}
"""Field → a value that is not the default here, and what it must do to both results."""
ONLY_WHERE_IT_MEANS_SOMETHING = {
    "retrain_hours": "small models are always retrained",
    "krylov_steps": "what is dense is not iterated",
    "device": "there is one here",
    "memory": "it is what makes the forms here",
    "products": "what is dense is not multiplied matrix-free",
}


def test_every_field_of_settings_is_in_the_table() -> None:
    known = set(OBSERVED) | set(ONLY_WHERE_IT_MEANS_SOMETHING)
    assert {field.name for field in fields(Settings)} == known


@pytest.mark.parametrize("field", list(OBSERVED))
def test_a_setting_is_honoured_in_every_form(field: str) -> None:
    changed, observe = OBSERVED[field]
    dense, free = map(observe, both("many_parameters", replace(SETTINGS, **changed)))
    np.testing.assert_allclose(
        np.asarray(dense, float) if not isinstance(dense, str) else 0,
        np.asarray(free, float) if not isinstance(free, str) else 0,
        atol=2e-2 if field == "negative" else 1e-6,
    )
    assert type(dense) is type(free)
    if isinstance(dense, str):
        assert dense == free
    if "target" not in changed and field not in ("base_seeds",):
        before = observe(both("many_parameters")[0])
        if isinstance(dense, str):
            assert before != dense
        else:
            assert np.shape(before) != np.shape(dense) or not np.allclose(before, dense)


@cache
def with_everything(name: str, memory: float) -> xr.DataTree:
    """The lattice, sampled and empirical Fishers, the paper's protocol, and rungs of one's own."""
    settings = replace(SETTINGS, lattice=True)
    extra = {**fisher_rungs(), **ladder_rungs(), "mine": _mine}
    return run(trained(name), extra=extra, settings=settings, progress=False, memory=memory)


def _mine(problem: Problem) -> Curvature:
    """G's largest eigenpairs, found from its products."""
    return leading_eigenpairs(ggn_product(problem), 12)


@pytest.mark.parametrize("name", ["few_parameters", "many_parameters"])
def test_rungs_beside_the_chain_are_the_same_in_every_form(name: str) -> None:
    """But for a truncated H, whose inverse jumps at ε: no Krylov space is close to it."""
    dense, free = (with_everything(name, memory)["attribution"]["lds"] for memory in (8.0, NONE))
    rungs = {*LATTICE, *fisher_rungs(), *ladder_rungs(), "mine"} - {"hessian_truncated"}
    for rung in rungs:
        gap = abs(dense.sel(rung=rung).values - free.sel(rung=rung).values)
        assert np.isfinite(gap).any(), rung
        assert np.nanmean(gap) < 0.03, rung


@pytest.mark.parametrize("name", ["few_parameters", "many_parameters"])
def test_every_order_has_the_same_shares_in_every_form(name: str) -> None:
    dense, free = (with_everything(name, memory)["shares"] for memory in (8.0, NONE))
    for group, variable in (("orders", "drop_by_order"), ("shapley", "shapley_drop")):
        first, second = (tree[group][variable].sel(protocol="equal") for tree in (dense, free))
        gap = abs(first - second).sel(ci_bound="estimate")
        assert float(gap.max()) < 0.03, group


def test_a_lattice_that_cannot_be_had_is_said_to_be_missing() -> None:
    settings = replace(SETTINGS, lattice=True, krylov_steps=1)
    tree = run(trained("convolutional"), settings=settings, progress=False, memory=NONE)
    assert "chain's own order alone" in tree.attrs["notes"]
    assert "orders" not in tree["shares"].children
