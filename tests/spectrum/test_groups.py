"""Spectra of a large run against those of the matrices themselves, where both can be had."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from decomposition.chain import build_chain
from decomposition.chain.plan import Choice, Plan, Way, plan_chain
from decomposition.curvature import Curvature
from decomposition.names import CHAIN
from decomposition.problem import Problem
from decomposition.problems.networks import mlp
from decomposition.report.page import report_html
from decomposition.results import provenance
from decomposition.results.validate import check_tree
from decomposition.spectrum.density import WIDE, density, symlog, thinned
from decomposition.spectrum.errors import ErrorPlan
from decomposition.spectrum.frobenius import PROBES
from decomposition.spectrum.groups import spectral_groups
from decomposition.spectrum.known import Known, Work, known_of, planned_products
from decomposition.spectrum.measure import Spectrum, exact_spectrum
from tests.cases import classification
from tests.elsewhere import elsewhere
from tests.test_matrix_free_run import problem as convolutional

FREE: Way = "matrix-free"
WORK = Work(end_steps=24, probes=6, steps=12, norm_steps=10)
ABSOLUTE = 1e-9


def wide() -> Problem:
    """P = 67 parameters, N·C = 15: G is exact through its dual form."""
    return classification(mlp((4, 8, 3), nn.GELU, 0), n=5)


def forced(ggn: Way) -> Plan:
    ways: dict[str, Way] = {"hessian": FREE, "ggn": ggn, "block_ggn": ggn}
    choices = {name: Choice(name, ways.get(name, "structured"), 0, "") for name in CHAIN}
    return Plan(choices, 0, lambda rows: (ggn, 0, ""))


def groups_of(problem: Problem, plan: Plan) -> tuple[Known, dict[str, xr.Dataset]]:
    known = known_of(build_chain(problem, plan=plan), problem.num_examples, work=WORK)
    return known, spectral_groups(known, problem, plan, ErrorPlan([0.1], 0, 2))


@dataclass(frozen=True)
class Case:
    problem: Problem
    dense: dict[str, Curvature]
    groups: dict[str, xr.Dataset]
    products: dict[str, int]
    form: xr.Dataset

    def eigenvalues(self, rung: str) -> np.ndarray:
        return self.dense[rung].eigenvalues().numpy()

    @property
    def exact(self) -> list[str]:
        data = self.groups["/spectral_density"]
        return [r for r in CHAIN if not int(data["estimated"].sel(rung=r))]

    @property
    def estimated(self) -> list[str]:
        return [r for r in CHAIN if r not in self.exact]


@pytest.fixture(scope="module", params=["dual", FREE])
def case(request: pytest.FixtureRequest) -> Case:
    problem = wide() if request.param == "dual" else convolutional()
    plan = forced(request.param)
    known, groups = groups_of(problem, plan)
    return Case(problem, build_chain(problem), groups, known.products, groups["/forms"])


def within(
    value: xr.DataArray, error: xr.DataArray, true: float | np.ndarray, scale: float = 1.0
) -> bool:
    return bool((np.abs(value - true) <= 3.0 * error + ABSOLUTE * scale).all())


def test_rungs_with_known_eigenvalues_are_exact(case: Case) -> None:
    dual = str(case.form["form"].sel(rung="ggn").values) == "dual"
    assert case.exact == list(CHAIN[1:] if dual else CHAIN[3:])
    data = case.groups["/spectral_density"].sel(rung=case.exact)
    assert not data["standard_error"].any()
    mu = data["eigenvalue"].values
    for rung in case.exact:
        values = case.eigenvalues(rung)
        values[np.abs(values) < 1e-12 * values.max()] = 0.0
        true = (values[:, None] < mu).sum(0)
        for name in ("count", "count_lower", "count_upper"):
            np.testing.assert_array_equal(data[name].sel(rung=rung), true)


def test_the_null_space_is_counted(case: Case) -> None:
    data = case.groups["/spectral_summary"]["value"].sel(quantity="numerical_rank")
    for rung in case.exact:
        values = case.eigenvalues(rung)
        assert float(data.sel(rung=rung)) == (values > 1e-12 * values.max()).sum()
    if "ggn" in case.exact:  # softmax: rank at most N (C − 1)
        assert float(data.sel(rung="ggn")) == 10


def test_densities_lie_within_three_errors(case: Case) -> None:
    data = case.groups["/spectral_density"]
    t, s = float(data.attrs["threshold"]), data["position"].values
    for rung in CHAIN:
        z = (s[:, None] - symlog(case.eigenvalues(rung), t)) / WIDE
        true = np.exp(-0.5 * z * z).sum(1) / (WIDE * np.sqrt(2.0 * np.pi))
        here = data.sel(rung=rung)
        gap = np.abs(here["density"].values - true)
        allowed = 3.0 * here["standard_error"].values
        if rung in case.exact:
            np.testing.assert_allclose(gap, 0.0, atol=1e-6 * true.max())
        else:
            told = np.isfinite(gap)
            assert told.mean() > 0.3
            assert (gap <= allowed + 0.01 * true.max())[told].mean() > 0.98


def test_counts_lie_between_their_bounds(case: Case) -> None:
    data = case.groups["/spectral_density"]
    mu = data["eigenvalue"].values
    for rung in case.estimated:
        values, here = case.eigenvalues(rung), data.sel(rung=rung)
        # what is zero in exact arithmetic may count on either side
        slack = 1e-10 * np.abs(values).max()
        below = ((values + slack)[:, None] < mu).sum(0), ((values - slack)[:, None] < mu).sum(0)
        assert (here["count_lower"] <= below[1] + 1e-6).all()
        assert (here["count_upper"] >= below[0] - 1e-6).all()


def test_negative_eigenvalues_of_the_hessian(case: Case) -> None:
    data = case.groups["/spectral_summary"]
    values = case.eigenvalues("hessian")
    count = data.sel(rung="hessian", quantity="negative_count")
    assert float(count["lower"]) <= (values < 0).sum() <= float(count["upper"])
    mass = data.sel(rung="hessian", quantity="negative_mass")
    assert within(mass["value"], mass["standard_error"], -values[values < 0].sum())
    others = data["value"].sel(rung=list(CHAIN[1:]), quantity=["negative_count", "negative_mass"])
    assert float(np.abs(others).max()) <= 1e-9


@pytest.mark.parametrize("quantity", ["nuclear", "stable_rank", "negative_share"])
def test_summaries_lie_within_three_errors(case: Case, quantity: str) -> None:
    data = case.groups["/spectral_summary"].sel(quantity=quantity)
    for rung in CHAIN:
        mu = case.eigenvalues(rung)
        true = {
            "nuclear": np.abs(mu).sum(),
            "stable_rank": (mu**2).sum() / (mu**2).max(),
            "negative_share": np.maximum(-mu, 0.0).sum() / np.abs(mu).sum(),
        }[quantity]
        here = data.sel(rung=rung)
        assert within(here["value"], here["standard_error"], true, max(true, 1.0))


def test_effective_dimensions_lie_within_three_errors(case: Case) -> None:
    data = case.groups["/effective_dimension"]
    for rung in CHAIN:
        mu, damping = np.abs(case.eigenvalues(rung))[:, None], data["damping"].values
        here = data.sel(rung=rung)
        true = (mu / (mu + damping)).sum(0)
        assert within(here["dimension"], here["standard_error"], true, len(mu))
    assert not data["standard_error"].sel(rung=case.exact).any()


def test_ends_are_eigenvalues_within_their_residuals(case: Case) -> None:
    data = case.groups["/spectral_ends"]
    for rung in CHAIN:
        values = case.eigenvalues(rung)
        here = data.sel(rung=rung).stack(place=("end", "rank")).dropna("place")
        gap = np.abs(here["eigenvalue"].values[:, None] - values).min(1)
        assert (gap <= here["residual"].values + 1e-9 * np.abs(values).max()).all()
        first = data.sel(rung=rung, end="highest", rank=1)
        assert float(first["eigenvalue"]) == pytest.approx(values[-1], rel=1e-6)


def test_frobenius_errors_lie_within_three_standard_errors(case: Case) -> None:
    data = case.groups["/spectral_error"].sel(metric="relative_frobenius")
    for suffix, reference in (("", "hessian"), ("_against_ggn", "ggn")):
        exact = case.dense[reference].dense()
        for rung in CHAIN[1:]:
            true = float(torch.linalg.norm(case.dense[rung].dense() - exact) / exact.norm())
            value, error = (
                data[f"{n}{suffix}"].sel(rung=rung) for n in ("value", "standard_error")
            )
            assert within(value, error, true)
            if reference == "ggn" and "ggn" in case.exact:
                assert float(error) == 0.0


def test_spectral_norms_are_lower_bounds_close_to_the_norm(case: Case) -> None:
    data = case.groups["/spectral_error"].sel(metric="relative_spectral")
    for suffix, reference in (("", "hessian"), ("_against_ggn", "ggn")):
        exact = case.dense[reference].dense()
        scale = float(torch.linalg.eigvalsh(exact).abs().max())
        for rung in CHAIN[1:]:
            difference = torch.linalg.eigvalsh(case.dense[rung].dense() - exact).abs()
            true = float(difference.max()) / scale
            found = float(data[f"value{suffix}"].sel(rung=rung))
            assert 0.97 * true - ABSOLUTE <= found <= true * (1 + 1e-6) + ABSOLUTE


def test_overlaps_are_told_where_both_spectra_are_known(case: Case) -> None:
    data = case.groups["/spectral_error"].sel(metric="eigenvalue_overlap")
    assert np.isnan(data["value"].sel(rung=list(CHAIN[1:]))).all()
    known = np.isfinite(data["value_against_ggn"].sel(rung=list(CHAIN[2:])))
    assert bool(known.all()) == ("ggn" in case.exact)


def test_products_are_planned(case: Case) -> None:
    """Those of the spectra, beside PROBES for Frobenius errors and as many of H for its trace.

    Spectral norms may need fewer than were planned.
    """
    form = str(case.form["form"].sel(rung="ggn").values)
    planned = planned_products(forced(form), case.problem, WORK)  # type: ignore[arg-type]
    planned["hessian"] -= PROBES
    of_spectra = {rung: count - PROBES for rung, count in planned.items()}
    assert of_spectra["hessian"] == case.products["hessian"]
    for rung, count in case.products.items():
        assert 0.5 * of_spectra[rung] <= count <= of_spectra[rung]


def test_products_are_counted_and_bounded(case: Case) -> None:
    assert case.products["hessian"] == WORK.columns(len(CHAIN) - 1)
    np.testing.assert_array_equal(
        case.groups["/spectral_density"]["products"], list(case.products.values())
    )
    assert Work.of(10**9).columns(len(CHAIN) - 1) == 60


def test_the_groups_are_a_result_with_a_report(case: Case) -> None:
    tree = xr.DataTree.from_dict(case.groups)
    tree.attrs = provenance(
        problem="tiny", config={}, seeds={}, parameters=67, examples=5, queries=7
    )
    check_tree(tree, "the groups", strict=True)
    page = report_html(tree)
    for said in ("Spectral density, whole matrix", "Number of eigenvalues beyond", "residual"):
        assert said in page
    assert "The spectrum of Hessian (" in page
    assert "negative eigenvalues" in page
    assert "Spectral error against H" in page


def test_many_eigenvalues_are_drawn_as_fewer_nodes() -> None:
    rng = np.random.default_rng(0)
    values = np.sign(rng.normal(size=30_000)) * 10.0 ** rng.uniform(-8, 0, 30_000)
    spectrum = exact_spectrum(np.concatenate([values, np.zeros(5000)]))
    every = spectrum.measure
    few = thinned(every, WIDE)
    assert few.nodes.shape[1] < 10_000
    assert few.weights.sum() == 35_000
    pair = [
        density({"whole": {"mine": drawn}}, threshold=1e-6, width=WIDE)["density"].squeeze()
        for drawn in (spectrum, Spectrum(few, spectrum.ends))
    ]
    np.testing.assert_allclose(pair[1], pair[0], atol=0.01 * float(pair[0].max()))


def test_on_another_device_the_numbers_are_the_same() -> None:
    problem, plan = wide(), forced("dual")
    here, expected = groups_of(problem, plan)
    with elsewhere() as device:
        there, found = groups_of(problem.to(device), plan)
    for rung, one in here.spectra.items():
        assert there.spectra[rung].ends.highest == pytest.approx(one.ends.highest, rel=1e-8)
    norms, others = (
        g["/spectral_error"]["value"].sel(metric="relative_spectral") for g in (expected, found)
    )
    np.testing.assert_allclose(others, norms, rtol=1e-6, atol=1e-9)


def test_where_every_rung_has_a_matrix_every_number_is_exact() -> None:
    problem = wide()
    plan = plan_chain(problem)
    known = known_of(build_chain(problem), problem.num_examples)
    groups = spectral_groups(known, problem, plan, ErrorPlan([0.1], 0, 2))
    for path, name in (
        ("/spectral_density", "standard_error"),
        ("/spectral_summary", "standard_error"),
        ("/spectral_ends", "residual"),
        ("/effective_dimension", "standard_error"),
        ("/spectral_error", "standard_error"),
        ("/forms", "trace_error"),
        ("/forms", "squared_norm_error"),
    ):
        assert not groups[path][name].any(), path
    for rung, curvature in build_chain(problem).items():
        mu = groups["/spectrum"]["eigenvalues"].sel(rung=rung)
        np.testing.assert_allclose(mu, np.linalg.eigvalsh(curvature.dense()), atol=1e-12)
        assert float(groups["/forms"]["trace"].sel(rung=rung)) == pytest.approx(float(mu.sum()))


@pytest.mark.parametrize("make", [wide, lambda: classification(mlp((4, 5, 3), nn.GELU, 0))])
def test_one_measure_on_both_sides_of_p_and_n_c(make: Callable[[], Problem]) -> None:
    """P = 67 > N·C = 15 through the Gram matrix, P = 43 < N·C = 72 by products; and as matrices."""
    problem = make()
    gram = problem.num_examples * problem.num_outputs < problem.num_parameters
    free = known_of(
        build_chain(problem, plan=forced("dual" if gram else FREE)), problem.num_examples
    )
    dense = known_of(build_chain(problem), problem.num_examples)

    def smooth(mu: np.ndarray) -> np.ndarray:
        scale = dense.spectra["ggn"].norm
        return np.stack([mu**2, np.exp(-((mu / scale) ** 2)), mu**2 / (mu**2 + scale**2)])

    for rung in CHAIN:
        (true, _), (found, error) = (k.spectra[rung].integrate(smooth) for k in (dense, free))
        np.testing.assert_array_less(np.abs(found - true), 4.0 * error + 1e-8 * true)
        if gram and rung != "hessian":
            assert not error.any()
