"""The same numbers on another device, and nothing of a computation left behind on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import decomposition.device
from decomposition import Recipe, Settings, run
from decomposition.chain import LATTICE, build_lattice
from decomposition.chain.cost import Rates
from decomposition.chain.paper_protocol import ladder_rungs
from decomposition.chain.plan import plan_chain
from decomposition.chain.rungs import sampled_ekfac
from decomposition.curvature import Curvature, EigenpairCurvature, ScaledIdentity, SolveCurvature
from decomposition.curvature.block_products import block_ggn_product
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.estimate import probes
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import (
    ggn_product,
    hessian_product,
)
from decomposition.errors import DecompositionError
from decomposition.evaluation import mean_loss
from decomposition.plan_command import plan_text
from decomposition.problem import Problem
from decomposition.retraining.bank import retrain_bank
from decomposition.retraining.plan import BankPlan
from decomposition.scores.gradients import (
    StreamedGradients,
    influence_scores,
    score_grid,
    target_gradients,
)
from decomposition.scores.scorers import scorers_of
from decomposition.spectrum.bands import gradient_energy, score_error
from decomposition.spectrum.command import Inspection
from decomposition.spectrum.errors import ErrorPlan
from decomposition.spectrum.groups import spectral_groups
from decomposition.spectrum.inspect import lattice
from decomposition.spectrum.known import known_of
from decomposition.spectrum.mismatch import kronecker_values
from decomposition.spectrum.norms import difference_norms, known_norms
from decomposition.spectrum.perturbation import lattice_steps, movements
from decomposition.spectrum.quadrature import Estimation
from decomposition.spectrum.scopes import spectra_of
from decomposition.spectrum.subspaces import cosine_matrix, subspace_overlap
from decomposition.targets.pbrf import proximal_responses
from tests import cases, general
from tests.elsewhere import DEVICE, elsewhere

EXTRA = {"mc1": sampled_ekfac(), "pi": ladder_rungs()["kfac_split_mc1_pi"]}
PROBLEMS: dict[str, Callable[[], Problem]] = {
    "plain": cases.residual,
    "cnn": general.cnn,
    "attention": general.attention,
    "frozen": general.frozen,
    "named inputs": general.named_inputs,
}


def close(there: Tensor, here: Tensor) -> None:
    assert there.device == DEVICE
    torch.testing.assert_close(there.cpu(), here, rtol=1e-8, atol=1e-10 * float(here.abs().max()))


def test_tensors_of_two_devices_do_not_meet() -> None:
    with elsewhere() as device:
        there, here = torch.ones(2, 3, device=device), torch.ones(3)
        for mixed in (
            lambda: there + here,
            lambda: there @ here,
            lambda: torch.stack([here] * 2) @ there,
        ):
            with pytest.raises(RuntimeError, match="on one device"):
                mixed()
        with pytest.raises(RuntimeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="numpy"):
            np.asarray(there)
        assert (there * torch.tensor(2.0)).sum().item() == 12.0
        assert there.cpu().numpy().shape == (2, 3)


@pytest.mark.parametrize("name", PROBLEMS)
def test_rungs_solves_spectra_and_scores(name: str) -> None:
    problem = PROBLEMS[name]()
    expected = build_lattice(problem, EXTRA)
    v = torch.randn(problem.num_parameters, 2, dtype=torch.float64, generator=torch.Generator())
    with elsewhere() as device:
        there = problem.to(device)
        assert there.device == device
        for rung, curvature in build_lattice(there, EXTRA).items():
            exact = expected[rung]
            assert curvature.device == device
            close(curvature.dense(), exact.dense())
            close(curvature.eigenvalues(), exact.eigenvalues())
            close(influence_scores(there, curvature, 0.1), influence_scores(problem, exact, 0.1))
            solved = curvature.solve(v, 0.1)
            assert solved.device == v.device  # where the vector came from
            torch.testing.assert_close(solved, exact.solve(v, 0.1), rtol=1e-8, atol=1e-10)


@pytest.fixture(params=[cases.tanh, general.sequence])
def both(request: pytest.FixtureRequest) -> tuple[Problem, dict[str, Curvature]]:
    problem = request.param()
    return problem, build_lattice(problem)


def test_stages_give_arrays(both: tuple[Problem, dict[str, Curvature]]) -> None:
    problem, here = both
    plan = ErrorPlan([0.1, 1.0], 0, 2, protocols={"equal": dict.fromkeys(here, 0.3)})
    expected = _groups(problem, here, plan, target_gradients(problem).query)
    with elsewhere() as device:
        there = problem.to(device)
        rungs, gradients = build_lattice(there), target_gradients(there, "margin")
        found = _groups(there, rungs, plan, target_gradients(there).query)
        scorers = scorers_of(rungs, gradients)
        assert isinstance(scorers["ekfac"].scores(0.1), np.ndarray)
        assert np.isfinite(mean_loss(there, "query"))
    stable = ["relative_frobenius", "relative_nuclear", "damped_inverse", "stein"]
    assert found.keys() == expected.keys()
    for group, data in expected.items():
        if "eigenvalues" in data:
            values = data["eigenvalues"].values
            np.testing.assert_allclose(found[group]["eigenvalues"].values, values, atol=1e-10)
        for metric in stable if "metric" in data.coords else ():
            one, other = (d["value"].sel(metric=metric).values for d in (found[group], data))
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-7)


def _groups(
    problem: Problem, rungs: dict[str, Curvature], plan: ErrorPlan, queries: torch.Tensor
) -> dict[str, xr.Dataset]:
    known = known_of(rungs, problem.num_examples)
    return spectral_groups(known, problem, plan_chain(problem), plan, queries)


def test_what_a_spectrum_is_inspected_by(both: tuple[Problem, dict[str, Curvature]]) -> None:
    problem, here = both
    with elsewhere() as device:
        there = problem.to(device)
        rungs, gradients = build_lattice(there), target_gradients(there)
        ggn, kfac = rungs["ggn"], rungs["kfac"]
        spectra_of(rungs)
        kronecker_values(rungs)
        movements(rungs, lattice_steps(list(rungs)))
        energy = gradient_energy(ggn, gradients)
        score_error(rungs, rungs["hessian"], gradients, 0.1)
        cosine_matrix(kfac, ggn, 3)
        overlap = subspace_overlap(rungs["hessian"], ggn).values
        norm = difference_norms(rungs["hessian"], {"ggn": ggn}, 40)["ggn"]
        assert probes(3, 2, 0, device).device == device
        if problem.plain:
            forms = Inspection(method="estimate").plan(there)
            work = Estimation(ends=2, probes=3, steps=8)
            spectra_of(lattice(there, LATTICE, forms), problem=there, plan=work)
    np.testing.assert_allclose(overlap[0], subspace_overlap(here["hessian"], here["ggn"])[0])
    np.testing.assert_allclose(energy["share"].sum("band"), 1.0)
    exact = known_norms(here["hessian"], here["ggn"])
    assert exact is not None
    assert abs(norm - exact.spectral) <= norm.error + 1e-9


def test_rungs_of_large_models() -> None:
    problem = general.conv2d_strided()
    v = torch.randn(problem.num_parameters, 2, dtype=torch.float64, generator=torch.Generator())

    def rungs(one: Problem) -> dict[str, Curvature]:
        dual, blocks = dual_rungs(one)
        ekfac = build_lattice(one)["ekfac"]
        return {
            "ggn": dual,
            "block_ggn": blocks,
            "matrix-free ggn": MatrixFreeCurvature(ggn_product(one), ekfac, definite=True),
            "matrix-free blocks": MatrixFreeCurvature(block_ggn_product(one), ekfac, definite=True),
            "hessian": MatrixFreeCurvature(hessian_product(one), ekfac),
            "single": MatrixFreeCurvature(ggn_product(one, torch.float32)),
        }

    expected = rungs(problem)
    with elsewhere() as device:
        for name, curvature in rungs(problem.to(device)).items():
            assert curvature.device == device
            for found, exact in (
                (curvature.matvec(v), expected[name].matvec(v)),
                (curvature.solve(v, 1.0), expected[name].solve(v, 1.0)),
            ):
                torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)
            together = curvature.solutions(v.to(device), [1.0, 10.0]).x
            assert together.device == device
            torch.testing.assert_close(
                together.cpu(), expected[name].solutions(v, [1.0, 10.0]).x, rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("randomness", ["shared", "independent"])
@pytest.mark.parametrize("case", [cases.tanh, general.frozen, general.sequence])
def test_retrained_models(case: Callable[[], Problem], randomness: str) -> None:
    problem = replace(case(), recipe=Recipe(lr=0.1, epochs=2, batch_size=4, dtype="float64"))
    plan = BankPlan(masks=3, repeats=1, second_order_masks=2, randomness=randomness)  # type: ignore[arg-type]
    here = retrain_bank(problem.trained(), plan, progress=False)
    with elsewhere() as device:
        trained = problem.to(device).trained()
        assert trained.device == device
        there = retrain_bank(trained, plan, progress=False)
        np.testing.assert_allclose(there.outputs, here.outputs, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(there.measurements(trained), here.measurements(problem))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["loss", "margin", "leave_one_out", "pbrf"])
def test_a_whole_run(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decomposition.device, "TYPES", ("cpu", "meta"))
    recipe = Recipe(lr=0.1, epochs=3, batch_size=4, dtype="float64")
    problem = replace(cases.tanh(), recipe=recipe)
    settings = Settings(
        target=target,  # type: ignore[arg-type]
        masks=24,
        second_order_masks=6,
        resamples=200,
        damping_points=5,
        leave_one_out_examples=8,
    )
    here = run(problem, settings=settings, progress=False)
    with elsewhere():
        there = run(problem, settings=settings, progress=False, device="meta")
    assert there.attrs["device"] == "meta"
    for node in here.subtree:
        for name, values in node.data_vars.items():
            if values.dtype.kind == "f":
                found = there[node.path][name].values
                np.testing.assert_allclose(found, values.values, rtol=1e-3, atol=1e-6)


def test_scores_and_gradients_of_large_models() -> None:
    problem = general.conv2d_strided()

    def found(one: Problem) -> list[Tensor]:
        curvature = MatrixFreeCurvature(ggn_product(one), definite=True, tolerance=1e-10)
        streamed = StreamedGradients(one)
        return [
            streamed.scores(curvature, 0.1),
            streamed.along(torch.ones(one.num_parameters, 1, dtype=torch.float64).to(one.device)),
        ]

    expected = found(problem)
    with elsewhere() as device:
        for there, here in zip(found(problem.to(device)), expected, strict=True):
            assert there.device == device
            torch.testing.assert_close(there.cpu(), here, rtol=1e-6, atol=1e-8)


def test_spectra_of_large_models() -> None:
    problem, plan = general.conv2d_strided(), Estimation(ends=2, probes=3, steps=8)
    rungs = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")
    forms = Inspection(method="estimate").plan(problem)
    expected = spectra_of(lattice(problem, rungs, forms), problem=problem, plan=plan)
    with elsewhere() as device:
        moved = problem.to(device)
        found = spectra_of(lattice(moved, rungs, forms), problem=moved, plan=plan)
    for scope, row in expected.items():
        for rung, spectrum in row.items():
            measure = spectrum.measure
            there = found[scope][rung].measure
            np.testing.assert_allclose(there.nodes, measure.nodes, rtol=0, atol=1e-7)


@pytest.mark.slow
def test_a_whole_large_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decomposition.device, "TYPES", ("cpu", "meta"))
    recipe = Recipe(lr=0.1, epochs=2, batch_size=4, dtype="float64")
    problem = replace(cases.tanh(), recipe=recipe)
    settings = Settings(masks=12, second_order_masks=6, resamples=100, damping_points=3)
    here = run(problem, settings=settings, progress=False, memory=1e-4)
    with elsewhere():
        there = run(problem, settings=settings, progress=False, device="meta", memory=1e-4)
    assert set(there.groups) == set(here.groups)
    np.testing.assert_allclose(
        there["bank"]["outputs"].values, here["bank"]["outputs"].values, rtol=0, atol=1e-9
    )


def test_a_plan_is_measured_there() -> None:
    problem = general.cnn()
    with elsewhere() as device:
        there = problem.to(device)
        rates = Rates.measure(there)
        plan = plan_chain(there, 1 << 30)
        text = plan_text(there)
    assert min(rates.eigh, rates.product, rates.sweep) > 0
    assert plan.choices == plan_chain(problem, 1 << 30).choices
    assert "GiB on meta" in text


def test_proximal_responses() -> None:
    problem = cases.tanh().trained()
    removed = np.arange(3)

    def outputs(one: Problem, rungs: Mapping[str, Curvature]) -> np.ndarray:
        return proximal_responses(one, rungs["ggn"], 1.0, removed).outputs

    here = outputs(problem, build_lattice(problem))
    with elsewhere() as device:
        there = problem.to(device)
        np.testing.assert_allclose(outputs(there, build_lattice(there)), here, atol=1e-6)


def test_rungs_of_the_user_lie_with_the_problem_or_are_solved_where_they_lie() -> None:
    problem = cases.tanh()
    size = problem.num_parameters
    basis = torch.eye(size, dtype=torch.float64)
    with elsewhere() as device:
        there = problem.to(device)
        for wrong in (
            lambda p: ScaledIdentity(size, 2.0),
            lambda p: EigenpairCurvature(basis[0], basis),
        ):
            with pytest.raises(DecompositionError, match="'mine' lies on cpu, the problem on meta"):
                build_lattice(there, {"mine": wrong})
        right = build_lattice(
            there,
            {
                "scaled": lambda p: ScaledIdentity(size, 2.0, p.device),
                "pairs": lambda p: EigenpairCurvature(basis.diag(), basis.to(p.device)),
                "solver": lambda p: SolveCurvature(
                    size, lambda v, damping: v / basis.diag()[:, None]
                ),
            },
        )
        gradients = target_gradients(there)
        for name in ("scaled", "pairs", "solver"):
            (scores,) = score_grid(right[name], gradients, [0.0])
            assert scores.device == device
