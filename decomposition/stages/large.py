"""What is measured where matrices are too large to form, each number with its error.

Squared Frobenius errors of the steps: with the dual Gram matrices those from G on are exact,
because G − B, B − E and E − K are orthogonal (‖G − B‖² = ‖G‖² − ‖B‖² and ‖B − E‖² = ‖B‖² − ‖E‖²);
what involves H is estimated with random probes. Attribution: scores of every rung at a few common
dampings, their agreement with the best affordable rung, and LDS where there is a bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from decomposition.attribution.agreement import agreement
from decomposition.attribution.bootstrap import resample
from decomposition.attribution.lds import predicted_effects
from decomposition.attribution.streamed import StreamedScores
from decomposition.chain.names import CHAIN, STEPS
from decomposition.curvature import BlockDiagonal, Curvature
from decomposition.curvature.large import MatrixFreeCurvature, SolverError
from decomposition.linalg import to_numpy
from decomposition.planner import Plan
from decomposition.problem import Problem
from decomposition.results.schema import CI_BOUNDS
from decomposition.settings import Settings
from decomposition.shares.crossfit import mask_folds
from decomposition.shares.levels import Levels, joint_levels
from decomposition.shares.steps import step_shares
from decomposition.spectrum.estimates import Estimate, probes, relative_error, xtrace
from decomposition.spectrum.lanczos import lanczos
from decomposition.spectrum.lanczos import probes as lanczos_probes
from decomposition.stages.selection import Measured
from decomposition.stages.shares import shares

MULTIPLIERS = (1.0, 10.0)
"""Common dampings, as multiples of ``damping_scale``: iterative solves make each one dear."""
LOWEST_STEPS = 30
"""Lanczos steps towards the lowest eigenvalue of H."""
PROBES = 16
TOP = 10
METRICS = ("spearman", f"top{TOP}_jaccard")
EQUAL = "equal"
ITEMS = (*STEPS, "cross_term")


@dataclass(frozen=True)
class Scores:
    """τ of every rung at every damping, as far as solves converged."""

    dampings: tuple[float, ...]
    tau: dict[str, list[np.ndarray | None]]
    """Rung → (Q, N) for each damping, None where the solve failed."""
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Errors:
    """Squared Frobenius norms, and errors of the steps, probe by probe."""

    norms: dict[str, Estimate]
    """‖C‖² of every rung."""
    traces: dict[str, Estimate]
    """tr C."""
    samples: Float[np.ndarray, "items probes"]
    """Squared error of ITEMS; all entries of a row are equal where it is exact."""
    relative: dict[str, dict[str, Estimate]]
    """Reference, H or G → rung C of the chain → ‖C − R‖_F / ‖R‖_F."""

    @property
    def split(self) -> dict[str, float]:
        """Their means."""
        return dict(zip(ITEMS, self.samples.mean(1).tolist(), strict=True))


def frobenius_errors(rungs: Mapping[str, Curvature], seed: int, count: int = PROBES) -> Errors:
    """Exact where norms are known and differences are orthogonal, else ‖(C − D) z‖²."""
    z = probes(rungs["ggn"].size, count, seed, rungs["ggn"].device)
    images = {name: rungs[name].matvec(z) for name in CHAIN}
    exact = {n for n in CHAIN if not isinstance(rungs[n], MatrixFreeCurvature)}
    norms, traces = {}, {}
    for name in CHAIN:
        if name in exact:
            norms[name] = Estimate(rungs[name].frobenius_norm() ** 2)
            traces[name] = Estimate(rungs[name].trace())
        else:
            norms[name] = Estimate.mean(to_numpy(images[name].square().sum(0)))
            traces[name] = xtrace(rungs[name], max(2, count // 2), seed)

    def gap(first: str, second: str) -> np.ndarray:
        return to_numpy((images[first] - images[second]).square().sum(0))

    def known(first: str, second: str) -> np.ndarray:
        return np.full(count, max(0.0, norms[first].value - norms[second].value))

    residual, rest = images["hessian"] - images["ggn"], images["ggn"] - images["kfac"]
    step = known if set(CHAIN[1:]) <= exact else gap
    samples = {
        "linearisation": gap("hessian", "ggn"),
        "cross_layer": step("ggn", "block_ggn"),
        "eigenbasis": step("block_ggn", "ekfac"),
        "eigenvalues": np.full(count, _between(rungs["ekfac"], rungs["kfac"])),
        "cross_term": to_numpy(2.0 * (residual * rest).sum(0)),
    }

    def from_ggn(name: str) -> np.ndarray:
        """‖G − C‖²."""
        if step is gap:
            return gap("ggn", name)
        last = samples["eigenvalues"] if name == "kfac" else 0.0
        return known("ggn", "ekfac" if name == "kfac" else name) + last

    def from_hessian(other: Tensor, exact_part: np.ndarray) -> np.ndarray:
        """‖H − C‖² = ‖H − G‖² + 2⟨H − G, G − C⟩ + ‖G − C‖²: what is exact is not sampled."""
        mixed = to_numpy(2.0 * (residual * (images["ggn"] - other)).sum(0))
        return samples["linearisation"] + mixed + exact_part

    square = np.full(count, norms["ggn"].value)
    if step is gap:
        square = to_numpy(images["ggn"].square().sum(0))
    scale = from_hessian(torch.zeros_like(z), square)
    relative = {
        "hessian": {n: relative_error(from_hessian(images[n], from_ggn(n)), scale) for n in CHAIN},
        "ggn": {n: relative_error(from_ggn(n), square) for n in CHAIN[1:]},
    }
    relative["hessian"]["hessian"] = Estimate(0.0)
    return Errors(norms, traces, np.stack([samples[item] for item in ITEMS]), relative)


def shares_group(
    errors: Errors, levels: Levels | None, dampings: Sequence[float], settings: Settings
) -> xr.Dataset:
    """``/shares`` of the squared Frobenius error, with intervals over the probes, and of the LDS.

    The LDS is that at the first damping, under protocol ``equal``: no damping is chosen.
    """
    every = shares(errors.split, None, None, {}, None, settings)["/shares"]
    data = every.sel(protocol=[EQUAL])
    if levels is not None and set(CHAIN) <= set(levels.nodes):
        _add_levels(data, levels, dampings[0], settings)
    count = errors.samples.shape[1]
    generator = np.random.default_rng((settings.seed, 3))
    picks = generator.integers(0, count, (settings.resamples, count))
    draws = errors.samples[:, picks].mean(2)  # (items, resamples)
    total = draws.sum(0)
    tail = 50.0 * (1.0 - settings.level)
    bounds = {"lower": tail, "upper": 100.0 - tail}
    place = {"metric": "frobenius_squared"}
    for bound, percent in bounds.items():
        at = {**place, "ci_bound": bound}
        data["drop"].loc[{**at, "step": list(ITEMS)}] = np.percentile(draws, percent, axis=1)
        data["share"].loc[{**at, "step": list(ITEMS)}] = np.percentile(
            draws / total, percent, axis=1
        )
        data["total"].loc[at] = np.percentile(total, percent)
    return data


def _add_levels(data: xr.Dataset, levels: Levels, damping: float, settings: Settings) -> None:
    name, place = levels.protocols[0], {"metric": "lds", "protocol": EQUAL}
    found = step_shares(levels.of(name, CHAIN), CHAIN, level=settings.level)
    at = {**place, "step": list(found.steps)}
    data["drop"].loc[at], data["share"].loc[at] = found.drop, found.share
    data["probability_degrades"].loc[at] = found.probability_degrades
    data["total"].loc[place], data["defined"].loc[place] = found.total, int(found.defined)
    shape = (data.sizes["protocol"], len(CHAIN))
    data.coords["rung"] = list(CHAIN)
    level, lambdas = np.full((*shape, 3), np.nan), np.full(shape, np.nan)
    row = list(data["protocol"].values).index(EQUAL)
    level[row], lambdas[row] = levels.of(name, CHAIN).interval(settings.level), damping
    data["level"] = (("protocol", "rung", "ci_bound"), level)
    data["level_damping"] = (("protocol", "rung"), lambdas)


def _between(ekfac: Curvature, kfac: Curvature) -> float:
    """‖E − K‖² in their common basis."""
    assert isinstance(ekfac, BlockDiagonal)
    assert isinstance(kfac, BlockDiagonal)
    return float((ekfac.basis_values() - kfac.basis_values()).square().sum())


def damping_scale(
    problem: Problem, rungs: Mapping[str, Curvature], errors: Errors, seed: int
) -> tuple[float, float]:
    """A damping at which H + λI is positive definite, and the lowest eigenvalue of H found.

    λ = max(tr G / min(P, N·C), 2 |μ_min|): the mean of the eigenvalues of G that the examples
    make non-zero, unless H has a more negative one. Below that a matrix-free H, which can only be
    inverted as it is, has poles, and MINRES hardly converges.
    """
    ggn = errors.traces["ggn"].value / min(problem.parameters, problem.examples * problem.outputs)
    start = lanczos_probes(problem.parameters, 1, seed, problem.device)
    ritz = lanczos(rungs["hessian"].matvec, start, LOWEST_STEPS)
    lowest = float(ritz.values.min())
    return max(ggn, -2.0 * lowest), lowest


def scored(
    problem: Problem,
    rungs: Mapping[str, Curvature],
    dampings: Sequence[float],
    progress: bool,
) -> Scores:
    """Scores of every rung at every damping; a solve that does not converge leaves a note."""
    streamed, notes = StreamedScores(problem), []
    tau: dict[str, list[np.ndarray | None]] = {name: [] for name in rungs}
    with tqdm(
        total=len(rungs) * len(dampings), desc="scores", unit="solve", disable=not progress
    ) as bar:
        for name, rung in rungs.items():
            for damping in dampings:
                try:
                    tau[name].append(to_numpy(streamed(rung, damping)))
                except SolverError as error:
                    tau[name].append(None)
                    notes.append(f"no scores of {name} at damping {damping:.3g}: {error}")
                bar.update()
    return Scores(tuple(dampings), tau, tuple(notes))


def attribution_group(
    found: Scores, measured: Measured | None, settings: Settings
) -> tuple[xr.Dataset, str, Levels | None]:
    """``/attribution``: agreement with the first rung solved at every damping; LDS with a bank.

    Returns:
        The group, the rung that agreement is with, and the LDS at every damping (as protocols).
    """
    complete = [name for name, parts in found.tau.items() if all(p is not None for p in parts)]
    reference = complete[0]
    shape = (len(found.tau), len(found.dampings))
    values = np.full((2, *shape), np.nan)
    for i, parts in enumerate(found.tau.values()):
        for j, part in enumerate(parts):
            truth = found.tau[reference][j]
            if part is not None and truth is not None:
                one = agreement(part, truth, min(TOP, part.shape[1]))
                values[:, i, j] = one.spearman, one.top_jaccard
    data = xr.Dataset(
        {"agreement": (("agreement_metric", "rung", "damping"), values)},
        {
            "agreement_metric": list(METRICS),
            "rung": list(found.tau),
            "damping": list(found.dampings),
        },
    )
    data.attrs["agreement_with"] = reference
    if measured is None:
        return data, reference, None
    return data, reference, _add_lds(data, found, complete, measured, settings)


def _add_lds(
    data: xr.Dataset,
    found: Scores,
    usable: Sequence[str],
    measured: Measured,
    settings: Settings,
) -> Levels:
    """LDS at every damping; none is chosen, so nothing has to be cross-fitted."""
    effects = np.stack(
        [
            [
                predicted_effects(measured.masks, part)
                for name in usable
                if (part := found.tau[name][j]) is not None
            ]
            for j in range(len(found.dampings))
        ]
    )
    masks, queries = measured.mean.shape
    weights = resample(masks, queries, 1, settings.resamples, seed=(settings.seed, 1))
    names = [f"{damping:g}" for damping in found.dampings]
    folds = mask_folds(masks, seed=(settings.seed, 2))
    levels = joint_levels([effects], [measured.mean], folds, weights, names, usable)
    rungs = list(found.tau)
    rows = [rungs.index(name) for name in usable]
    mean = np.full((len(rungs), len(names), 3), np.nan)
    each = np.full((len(rungs), len(names), queries), np.nan)
    mean[rows] = np.stack([levels.of(name).interval(settings.level) for name in names], 1)
    each[rows] = levels.per_query.swapaxes(0, 1)
    data["lds_mean"] = (("rung", "damping", "ci_bound"), mean)
    data["lds"] = (("rung", "damping", "query"), each)
    data.coords["ci_bound"], data.coords["query"] = list(CI_BOUNDS), np.arange(queries)
    return levels


def forms_group(rungs: Mapping[str, Curvature], plan: Plan, errors: Errors) -> xr.Dataset:
    """``/large``: how each rung was held, what its solves cost, its norm and its trace."""
    records = [r.record if isinstance(r, MatrixFreeCurvature) else [] for r in rungs.values()]
    unknown = Estimate(np.nan, np.nan)
    norms = [errors.norms.get(name, unknown) for name in rungs]
    traces = [errors.traces.get(name, unknown) for name in rungs]
    forms = [plan.choices[name].way if name in plan.choices else "given" for name in rungs]
    return xr.Dataset(
        {
            "form": ("rung", forms),
            "squared_norm": ("rung", [norm.value for norm in norms]),
            "squared_norm_error": ("rung", [norm.error for norm in norms]),
            "trace": ("rung", [trace.value for trace in traces]),
            "trace_error": ("rung", [trace.error for trace in traces]),
            "products": ("rung", [sum(one.products for one in record) for record in records]),
            "systems": ("rung", [sum(one.columns for one in record) for record in records]),
            "residual": (
                "rung",
                [max((one.residual for one in record), default=0.0) for record in records],
            ),
        },
        {"rung": list(rungs)},
    )
