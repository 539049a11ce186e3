"""The proximal Bregman response function: where θ_s moves when an example is removed.

The minimum of PBO_i (see ``proximal``) is sought in the coordinates z in which the damped
Gauss–Newton matrix is the identity, δ = V diag(μ + λ)^(−1/2) z: there the fixed-point iteration
z ← z − ∇PBO_i is Newton's method with the matrix at θ_s, its first step is the influence
function with the GGN, and what is left is the non-linearity of the network alone.

Where the GGN has no eigenbasis (see ``newton_step``), z are the coordinates of EK-FAC and the step
is still Newton's with the GGN, from a solve: without it EK-FAC's coupling-free inverse takes some
hundred gradients, or fails.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from tqdm import tqdm

from decomposition.curvature.cg import cg
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.curvature.operator import Curvature, Diagonalised
from decomposition.curvature.solution import Stopping
from decomposition.damping import inverse_eigenvalues
from decomposition.device import chunk_bytes
from decomposition.inputs import take
from decomposition.linalg import from_numpy, to_numpy
from decomposition.memory import shrinking
from decomposition.problem import Problem
from decomposition.retraining.fingerprint import study_fingerprint
from decomposition.retraining.plan import BankPlan
from decomposition.retraining.store import ChunkStore
from decomposition.source import source_hash
from decomposition.targets.anderson import DEPTH, FixedPoints, anderson
from decomposition.targets.functions import TargetError
from decomposition.targets.proximal import ProximalObjective

TOLERANCE = 1e-6
"""Gradient at the response, relative to that at θ_s, both in the norm of (G + λI)⁻¹; with a step
from a solve, Newton's step relative to the first, both in the norm of the damped metric."""
FLOOR = 1e-5
"""Gradients at θ_s below this fraction of their root mean square are held to that instead: of an
example that the model has fitted perfectly, rounding leaves little else."""
Step = Callable[[Float[Tensor, "P k"]], Float[Tensor, "P k"]]
"""v → (G + λI)⁻¹ v, to the accuracy that the solver has; NaN where a column has diverged."""
INNER = Stopping(0.03, 200, required=False)
"""Of an iterated step: the acceleration around it makes good what is missing, at about one and a
half digits a step."""
SOURCE = ("targets/anderson.py", "targets/pbrf.py", "targets/proximal.py")
"""The code, beside the losses, that a response depends on."""
CHUNK = 20
"""Examples that are solved, and kept on disk, together, at most."""
COPIES = 2 * DEPTH + 20
"""Numbers a parameter that the solution of one example takes: histories, points, gradients."""
NUMBERS = 2**27
"""Numbers that those solved together may take: 1 GB; of a million parameters, four examples."""
EVALUATIONS = 6
"""Gradients, and steps, that a response takes: 3 to 8 have been seen."""
PRODUCTS = 25
"""Products with G that an iterated step takes: 25 to 50 have been seen."""
ROWS = 64
"""Examples of the timed gradient; all of them take proportionally longer."""


@dataclass(frozen=True, eq=False)
class ProximalResponses:
    """What the responding models answer to the queries."""

    removed: Int64[np.ndarray, " M"]
    """The training example of each response."""
    outputs: Float[np.ndarray, "M Q C"]
    """f(x_q; θ_i), float64."""
    base_outputs: Float[np.ndarray, "Q C"]
    """f(x_q; θ_s), float64."""
    residual: Float[np.ndarray, " M"]
    """‖∇PBO_i(θ_i)‖ relative to its value at θ_s (see TOLERANCE, FLOOR); infinite: diverged."""
    damping: float
    """λ."""

    @property
    def converged(self) -> Bool[np.ndarray, " M"]:
        """Whether the residual is within TOLERANCE."""
        return self.residual <= TOLERANCE


def proximal_responses(
    problem: Problem,
    curvature: Diagonalised,
    damping: float,
    removed: Int64[np.ndarray, " M"],
    weight: float = 1.0,
    folder: Path | None = None,
    progress: bool = False,
    ggn: Curvature | None = None,
) -> ProximalResponses:
    """Solve PBO_i for every removed example i, or read from ``folder`` what is there.

    Args:
        problem: trained; the responses start from its model's parameters.
        curvature: the metric of the iteration: the GGN, or EK-FAC where that is too large, then
            with ``ggn``. The responses do not depend on it beyond their residual.
        damping: λ > 0 of the proximal term.
        removed: training examples.
        weight: part of the example's weight that is removed, in (0, 1].
        folder: where finished chunks are kept; the same call resumes. None keeps nothing.
        progress: show a progress bar.
        ggn: the GGN in dual form, or known by its products: every step is solved with it. None:
            the metric itself is inverted.

    Raises:
        TargetError: λ or the weight is out of range.
        DampingError: the damped metric is singular.
        StoreError: the folder cannot be used.
    """
    if not 0 < damping < float("inf"):
        raise TargetError(f"the proximal damping must be positive and finite, got {damping}")
    if not 0 < weight <= 1:
        raise TargetError(f"the removed weight must lie in (0, 1], got {weight}")
    solver = _Solver(problem, curvature, damping, weight, ggn)
    kept = KeptResponses(problem, damping, weight, folder)
    outputs, residual = [], []
    with tqdm(
        total=len(removed), desc="proximal responses", unit="example", disable=not progress
    ) as bar:
        for chunk in chunks_of(problem, removed):
            found = kept.load(chunk)
            if found is None:
                found = solver.solve(from_numpy(chunk, problem.device))
                kept.save(chunk, found)
            outputs.append(found[0])
            residual.append(found[1])
            bar.update(len(chunk))
    return ProximalResponses(
        removed, np.concatenate(outputs), solver.base_outputs(), np.concatenate(residual), damping
    )


class _Solver:
    """Minimises PBO_i in whitened coordinates."""

    def __init__(
        self,
        problem: Problem,
        curvature: Diagonalised,
        damping: float,
        weight: float,
        ggn: Curvature | None,
    ) -> None:
        self._problem, self._curvature, self._weight = problem, curvature, weight
        self._objective = ProximalObjective(problem, damping)
        inverse = inverse_eigenvalues(curvature.basis_values(), damping)
        self._root = inverse.sqrt()[:, None]
        self._newton = None if ggn is None else newton_step(ggn, curvature, damping)
        self._floor = 0.0

    def solve(self, removed: Int64[Tensor, " m"]) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (m, Q, C) on the queries, and residuals (m,)."""

        def some(part: slice) -> tuple[Tensor, Tensor]:
            found = self._minimise(removed[part])
            outputs = self._objective.query_outputs(self._delta(found.points))
            return outputs, found.residual

        parts = list(shrinking(some, len(removed), len(removed)))
        outputs, residual = (torch.cat(part) for part in zip(*parts, strict=True))
        return to_numpy(outputs.contiguous()), to_numpy(residual)

    def base_outputs(self) -> np.ndarray:
        zero = self._root.new_zeros(1, self._curvature.size)
        return to_numpy(self._objective.query_outputs(zero)[0].contiguous())

    def _minimise(self, removed: Tensor) -> FixedPoints:
        def descent(z: Tensor, which: Tensor) -> Tensor:
            gradient = self._objective.gradient(self._delta(z), removed[which], self._weight)
            gradient = gradient.T.contiguous()
            if self._newton is None:
                return -(self._root * self._curvature.to_basis(gradient)).T
            return -(self._curvature.to_basis(self._newton(gradient)) / self._root).T

        start = self._root.new_zeros(len(removed), self._curvature.size)
        first = descent(start, torch.arange(len(removed), device=start.device))
        scale = first.norm(dim=1).clamp_min(self._smallest())
        return anderson(descent, start, scale, TOLERANCE, first=first)

    def _smallest(self) -> float:
        """FLOOR times the root mean square over all training examples of ‖∇PBO_i(θ_s)‖."""
        if self._floor == 0.0:
            x, y = self._problem.rows("train")

            def squares(rows: slice) -> float:
                gradients = per_example_gradients(self._problem, take(x, rows), y[rows]).T
                whitened = self._root * self._curvature.to_basis(gradients.contiguous())
                return float(whitened.square().sum())

            one = 8 * self._problem.num_parameters
            step = chunk_bytes(self._root.device, NUMBERS) // one
            total = sum(shrinking(squares, len(y), step))
            self._floor = FLOOR * self._weight * (total / len(y)) ** 0.5 / len(y)
        return self._floor

    def _delta(self, z: Float[Tensor, "m P"]) -> Float[Tensor, "m P"]:
        return self._curvature.from_basis((self._root * z.T).contiguous()).T.contiguous()


def together(parameters: int) -> int:
    """Examples that are solved together; sizes alone decide, for they name what is on disk."""
    return min(CHUNK, max(1, NUMBERS // (COPIES * parameters)))


def responses_left(
    problem: Problem,
    damping: float,
    removed: Int64[np.ndarray, " M"],
    weight: float = 1.0,
    folder: Path | None = None,
) -> int:
    """Examples whose responses are not in ``folder`` yet.

    Raises:
        StoreError: the folder cannot be used.
    """
    kept = KeptResponses(problem, damping, weight, folder)
    return sum(len(chunk) for chunk in chunks_of(problem, removed) if kept.load(chunk) is None)


def chunks_of(problem: Problem, removed: Int64[np.ndarray, " M"]) -> list[np.ndarray]:
    """The removed examples, those that are solved together side by side."""
    step = together(problem.num_parameters)
    return [removed[start : start + step] for start in range(0, len(removed), step)]


class KeptResponses:
    """Chunks of responses in a folder.

    Raises:
        StoreError: the folder cannot be used.
    """

    def __init__(
        self, problem: Problem, damping: float, weight: float, folder: Path | None
    ) -> None:
        """Open the folder; None keeps nothing."""
        self._store, self._study = ChunkStore(folder), _study(problem, damping, weight)

    def load(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """Outputs and residuals, if they are there."""
        outputs, residual = (self._store.load(key) for key in self._keys(chunk))
        return None if outputs is None or residual is None else (outputs, residual)

    def save(self, chunk: np.ndarray, found: tuple[np.ndarray, np.ndarray]) -> None:
        """Write the outputs and residuals of a chunk."""
        for key, values in zip(self._keys(chunk), found, strict=True):
            self._store.save(key, values)

    def _keys(self, chunk: np.ndarray) -> list[str]:
        return [_key(self._study, what, chunk) for what in ("outputs", "residual")]


def _study(problem: Problem, damping: float, weight: float) -> str:
    """Hash of what all responses have in common; the trained parameters stand for the start."""
    theta = {name: value.detach() for name, value in problem.model.named_parameters()}
    facts = (
        study_fingerprint(problem, BankPlan(), theta),
        source_hash(*SOURCE),
        repr((damping, weight)),
    )
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()


def _key(study: str, what: str, removed: np.ndarray) -> str:
    return hashlib.sha256(f"{study} {what} {removed.tolist()}".encode()).hexdigest()


def newton_step(ggn: Curvature, metric: Curvature, damping: float) -> Step:
    """The damped inverse of the GGN.

    Args:
        ggn: G, positive semi-definite, in any form.
        metric: preconditions the solves of a G that is known by its products alone.
        damping: λ > 0.
    """
    if not ggn.matrix_free:
        return _of_finite_columns(lambda v: ggn.solve(v, damping, "absolute"))

    def step(v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        size = torch.linalg.vector_norm(v, dim=0).clamp_min(torch.finfo(v.dtype).tiny)
        found = cg(
            lambda u: ggn.matvec(u) + damping * u,
            v / size,
            lambda u: metric.solve(u, damping, "absolute"),
            INNER,
        )
        return found.x * size

    return _of_finite_columns(step)


def _of_finite_columns(step: Step) -> Step:
    def careful(v: Float[Tensor, "P k"]) -> Float[Tensor, "P k"]:
        finite = torch.isfinite(v).all(0)
        if bool(finite.all()):
            return step(v)
        out = torch.full_like(v, torch.nan)
        out[:, finite] = step(v[:, finite])
        return out

    return careful


def proximal_seconds(
    problem: Problem, curvature: Curvature, damping: float, count: int, ggn: Curvature | None
) -> float:
    """Predicted seconds of ``count`` responses, to within a factor of a few.

    Args:
        problem: trained.
        curvature: the metric.
        damping: λ.
        count: of removed examples.
        ggn: as in ``proximal_responses``.
    """
    if not count:
        return 0.0
    stack = min(count, together(problem.num_parameters))
    few = problem.of_examples(slice(0, min(ROWS, problem.num_examples)))
    objective = ProximalObjective(few, damping)
    delta = torch.zeros(stack, problem.num_parameters, dtype=torch.float64, device=problem.device)
    removed = torch.arange(stack, device=problem.device) % few.num_examples
    gradient = _seconds(lambda: objective.gradient(delta, removed), problem.device)
    gradient *= problem.num_examples / few.num_examples
    step, v = 0.0, torch.ones_like(delta.T)
    if ggn is not None and ggn.matrix_free:
        step = PRODUCTS * _seconds(
            lambda: (ggn.matvec(v), curvature.solve(v, damping, "absolute")), problem.device
        )
    elif ggn is not None:
        solve = newton_step(ggn, curvature, damping)
        step = _seconds(lambda: solve(v), problem.device)
    return count / stack * EVALUATIONS * (gradient + step)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    def wait() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    started = wait()
    work()
    first = wait() - started
    if first > 1.0:  # the warming up no longer counts
        return first
    work()
    return min(first, wait() - started - first)
