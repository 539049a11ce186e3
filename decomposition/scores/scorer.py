"""Scores of one rung at any damping: from its eigenbasis where it has one, else from solves.

Keeping the gradients in eigen-coordinates instead of the matrices lets hundreds of damping values
be scored without the P × P matrices in memory. A rung without a basis that fits is solved at all
dampings together, once. Scores are kept in float32 (relative rounding 6e-8, far below what a rank
correlation over 1,000 masks can see); ``influence_scores`` itself computes in float64.

Shapes: P parameters, N training examples, Q queries, M masks, D dampings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from decomposition.curvature.damped import DampedSpectrum
from decomposition.curvature.matrix_free import MatrixFreeCurvature, inverse
from decomposition.curvature.operator import (
    Curvature,
    Diagonalised,
    NotAvailableError,
    Solutions,
)
from decomposition.curvature.shared_space import Projection, SharedSpace
from decomposition.damping import (
    Added,
    NegativeCurvature,
    as_policy,
    damping_for_effective_dimension,
    effective_dimension,
)
from decomposition.errors import DampingError
from decomposition.linalg import from_numpy, product, to_numpy
from decomposition.scores.gradients import (
    Gradients,
    GradientSource,
    StreamedGradients,
    random_scores,
)
from decomposition.scores.lds import summed_effects

SOLUTION_NUMBERS = 2**27
"""Numbers in the solutions that are held at once: 1 GB."""
Treatment = tuple[float, str]
"""λ and the name of a policy for negative eigenvalues."""
Subset = np.ndarray | slice
"""Indices of a basis, or of parameters."""
ROTATED_NUMBERS = 2**28
"""Numbers in the training gradients that are kept in an eigenbasis, or in their sums: 1 GB."""
OVERFLOW = "the scores overflow single precision"


def treatment(damping: float, negative: str | NegativeCurvature) -> Treatment:
    """The key of a damping under a policy."""
    return float(damping), as_policy(negative).name


@dataclass(frozen=True)
class Eigenvalues:
    """What damping protocols ask of a spectrum, exact or by quadrature."""

    values: Float[Tensor, " m"]
    """μ in the order of a basis, or the nodes of a quadrature."""
    magnitude: float
    """Σ |μ| over all eigenvalues."""
    counts: Float[Tensor, " m"] | None = None
    """How many eigenvalues each node stands for; None: one."""
    added: Added | None = None
    """What damping adds besides λ, where it does."""

    def effective_dimension(self, damping: float) -> float:
        """Σ μ₊ / (μ₊ + λ)."""
        return effective_dimension(self.values, damping, self.added, self.counts)

    def damping_at(self, dimension: float) -> float:
        """The λ of an effective dimension.

        Raises:
            DampingError: no λ has it.
        """
        return damping_for_effective_dimension(self.values, dimension, self.added, self.counts)


class Scorer(ABC):
    """Influence scores of one rung, float32."""

    spectrum: DampedSpectrum | None = None
    """Eigenvalues in basis order and how λ enters their inverse, where they are known."""
    damping_free: bool = False
    """Whether damping changes the scores by no more than a factor, which no rank sees."""
    refinable: bool = True
    """Whether a damping between those of the grid costs little."""
    unsolved: Mapping[Treatment, str] = MappingProxyType({})
    """Treatment → why there is no solution, where there is none and all scores are NaN."""

    @property
    def mu(self) -> Float[torch.Tensor, " P"] | None:
        """Eigenvalues in basis order, where they are known exactly."""
        return None if self.spectrum is None else self.spectrum.values

    @property
    def eigenvalues(self) -> Eigenvalues | None:
        """What is known of the spectrum; None of a solver alone."""
        if self.spectrum is None:
            return None
        mu = self.spectrum.values
        return Eigenvalues(mu, float(mu.abs().sum()), None, self.spectrum.added)

    @abstractmethod
    def scores(
        self, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> Float[np.ndarray, "Q N"]:
        """τ at damping λ; NaN where the rung cannot be solved."""

    def nearest(self, damping: float, negative: str | NegativeCurvature) -> float:
        """The damping next to this one (by ratio) at which scores are to be had for nothing."""
        return damping

    def check(self, damping: float, negative: str | NegativeCurvature) -> None:
        """Raise DampingError if the damped rung is singular (where its eigenvalues are known)."""
        if self.spectrum is not None:
            self.spectrum.inverse(damping, negative)

    def prepare(  # noqa: B027  (nothing to do unless solves are shared)
        self,
        masks: Bool[np.ndarray, "M N"] | None,
        dampings: Sequence[float],
        keep: Sequence[float],
        negative: str | NegativeCurvature,
        progress: bool = False,
    ) -> None:
        """Do together what scores at several dampings share.

        Args:
            masks: of the effects that will be asked for; None: of none.
            dampings: all that effects will be asked for.
            keep: those of them at which scores will be asked for too.
            negative: policy for negative eigenvalues.
            progress: show a bar.
        """

    def predicted_effects(
        self,
        masks: Bool[np.ndarray, "M N"],
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[np.ndarray, "M Q"]:
        """−Σ_{i ∈ S_j} τ[q, i]: predicted loss on q after training on S_j, up to a constant.

        NaN where the rung cannot be solved.
        """
        return summed_effects(masks, self.scores(damping, negative))

    def partial_effects(
        self,
        masks: Bool[np.ndarray, "M N"],
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[np.ndarray, "K M Q"]:
        """Predicted effects through each part of the rung alone; over a partition they add up.

        A score is a sum over eigenvectors, so a layer of a block-diagonal rung, or a band of its
        spectrum, has a part of its own in every prediction. Subsets are indices of the basis; of a
        rung without one, the parameters of layers that it does not couple.

        Raises:
            NotAvailableError: these scores have no parts.
        """
        raise NotAvailableError(f"{type(self).__name__}: scores without parts")


class RotatedGradients:
    """Gradients in one eigenbasis, float32; rungs that share the basis share these.

    Training gradients are rotated one by one where they fit. Of a larger problem the sums over
    subsets are, of which there are fewer, and scores of single examples take their gradients.
    """

    def __init__(
        self, curvature: Diagonalised, source: GradientSource, by_sums: StreamedGradients | None
    ) -> None:
        """Rotate the gradients once."""
        self._basis, self._by_sums = curvature, by_sums
        parts = [_single(curvature.to_basis(part)) for part in source.query_parts(source.queries)]
        self.query: Float[np.ndarray, "P Q"] = np.concatenate(parts, 1)
        self.examples = source.examples
        self._train: Float[np.ndarray, "N P"] | None = None
        if by_sums is None:
            self._train = np.concatenate(
                [_single(curvature.to_basis(part)).T for part in source.train_parts()]
            )
        self._sums: tuple[np.ndarray, np.ndarray] | None = None

    @staticmethod
    def fitting(
        curvature: Diagonalised, source: GradientSource, masks: int
    ) -> RotatedGradients | None:
        """In the form that fits, for so many subsets; None where none does."""
        if not isinstance(source, StreamedGradients):
            return RotatedGradients(curvature, source, None)
        fewest = max(source.queries, min(source.examples, masks or source.examples))
        if curvature.size * fewest > ROTATED_NUMBERS:
            return None
        single = curvature.size * source.examples <= ROTATED_NUMBERS
        return RotatedGradients(curvature, source, None if single else source)

    def along(self, w: Float[np.ndarray, "P Q"]) -> Float[np.ndarray, "N Q"]:
        """(Vᵀ g_i)ᵀ w of every training example."""
        if self._by_sums is None:
            assert self._train is not None
            return product(self._train, w)
        directions = self._basis.from_basis(from_numpy(w.astype(np.float64), self._basis.device))
        return _single(self._by_sums.along(directions)).T

    def sums(self, masks: Bool[np.ndarray, "M N"]) -> Float[np.ndarray, "M P"]:
        """Σ_{i ∈ S_j} Vᵀ g_i, kept for the masks seen last."""
        if self._sums is None or self._sums[0] is not masks:
            if self._by_sums is None:
                assert self._train is not None
                found = product(masks.astype(np.float32), self._train)
            else:
                summed = self._by_sums.summed(masks)
                found = _single(self._basis.to_basis(summed.double())).T
            self._sums = masks, np.ascontiguousarray(found)
        return self._sums[1]


Rotations = dict[object, RotatedGradients]
"""Key of a basis → gradients in it."""


class SpectralScorer(Scorer):
    """A rung in its eigenbasis: a new damping costs one diagonal scaling and one product."""

    def __init__(self, spectrum: DampedSpectrum, rotated: RotatedGradients) -> None:
        """Give the rotated gradients their eigenvalues."""
        self.unsolved: dict[Treatment, str] = {}
        self.spectrum = spectrum
        self.damping_free = spectrum.blind_to_damping()
        self._rotated = rotated

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(Vᵀ g_q)ᵀ diag(1/d) (Vᵀ g_i) / N."""
        with np.errstate(over="ignore", invalid="ignore"):  # told by whoever reads them
            along = self._rotated.along(self._scaled_query(damping, negative))
            return along.T / np.float32(len(along))

    def predicted_effects(
        self,
        masks: np.ndarray,
        damping: float,
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """The sum over S_j is taken in eigen-coordinates, once for all dampings."""
        with np.errstate(over="ignore", invalid="ignore"):
            sums = self._rotated.sums(masks)
            found = product(sums, self._scaled_query(damping, negative))
            return found / np.float32(-masks.shape[1])

    def partial_effects(
        self,
        masks: np.ndarray,
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> Float[np.ndarray, "K M Q"]:
        """Sums over subsets of the eigen-coordinates."""
        sums, query = self._rotated.sums(masks), self._scaled_query(damping, negative)
        scale = np.float32(-masks.shape[1])
        return np.stack([product(sums[:, one], query[one]) / scale for one in subsets])

    def _scaled_query(self, damping: float, negative: str | NegativeCurvature) -> np.ndarray:
        """NaN where the rung is singular, or no eigenvalue is left."""
        assert self.spectrum is not None
        try:
            inverse = self.spectrum.inverse(damping, negative)
        except DampingError as error:
            self.unsolved[treatment(damping, negative)] = str(error)
            return np.full_like(self._rotated.query, np.nan)
        return self._rotated.query * _single(inverse)[:, None]


class SolvingScorer(Scorer):
    """A rung by its solver; dampings that are asked for together are solved together.

    Where it cannot be solved (singular, or out of reach of its iteration) there are no scores.
    """

    def __init__(
        self,
        curvature: Curvature,
        source: GradientSource,
        eigenvalues: Eigenvalues | None = None,
    ) -> None:
        """Nothing is solved yet.

        Args:
            curvature: C.
            source: gradients.
            eigenvalues: what is known of its spectrum; default its own, where it has an eigenbasis.
        """
        self.refinable = not curvature.matrix_free
        self.unsolved: dict[Treatment, str] = {}
        self._curvature, self._source, self._eigenvalues = curvature, source, eigenvalues
        self._basis = curvature.eigenbasis
        if self._basis is not None:
            self.spectrum = self._basis.spectrum()
            self.damping_free = self.spectrum.blind_to_damping()
        self._tau: dict[Treatment, np.ndarray] = {}
        self._masks: np.ndarray | None = None
        self._effects: dict[Treatment, np.ndarray] = {}

    @property
    def eigenvalues(self) -> Eigenvalues | None:
        """Those that were given, else those of its own spectrum."""
        return self._eigenvalues or super().eigenvalues

    def prepare(
        self,
        masks: np.ndarray | None,
        dampings: Sequence[float],
        keep: Sequence[float],
        negative: str | NegativeCurvature,
        progress: bool = False,
    ) -> None:
        """(C_λ⁻¹ g_q)ᵀ g_i / N at all of these dampings that are not known yet."""
        if masks is not self._masks:
            self._masks, self._effects = masks, {}
        known = self._tau if masks is None else self._effects
        wanted = [
            d for d in sorted(set(map(float, dampings))) if treatment(d, negative) not in known
        ]
        if not wanted:
            return
        tau, effects = [], []
        kept = [i for i, damping in enumerate(wanted) if damping in set(map(float, keep))]
        with _watched(self._curvature, self._source.queries, progress):
            for gradients in self._source.query_parts(self._at_once(len(wanted))):
                part = self._solved(gradients, wanted, negative)
                tau.append(part[kept])
                if masks is not None:
                    effects.append(np.stack([_effects(masks, one) for one in part]))
        treatments = [treatment(damping, negative) for damping in wanted]
        self._keep(self._tau, [treatments[i] for i in kept], np.concatenate(tau, 1))
        if masks is not None:
            self._keep(self._effects, treatments, np.concatenate(effects, 2))

    def _at_once(self, columns: int) -> int:
        """Queries whose solutions, so many of each, are held at once."""
        return max(1, SOLUTION_NUMBERS // (self._curvature.size * columns))

    def _keep(
        self, table: dict[Treatment, np.ndarray], treatments: list[Treatment], found: Any
    ) -> None:
        """One solution that is missing is none for any query: levels are means over all."""
        for key, one in zip(treatments, found, strict=True):
            table[key] = np.full_like(one, np.nan) if key in self.unsolved else one

    def _solved(
        self, gradients: Tensor, dampings: list[float], negative: str | NegativeCurvature
    ) -> Float[np.ndarray, "D k N"]:
        found = self._curvature.solutions(gradients, dampings, negative)
        solved = torch.isfinite(found.x).all(1).all(1)
        queries = gradients.shape[1]
        tau = np.full((len(dampings), queries, self._source.examples), np.nan, np.float32)
        if bool(solved.any()):
            columns = found.x[solved].movedim(1, 0).flatten(1)  # (P, solved · k)
            products = self._source.along(columns) / self._source.examples
            tau[to_numpy(solved)] = _single(products.unflatten(0, (-1, queries)))
        for i, damping in enumerate(dampings):
            if not solved[i]:
                self.unsolved.setdefault(treatment(damping, negative), _reason(found, damping))
            elif not np.isfinite(tau[i]).all():
                self.unsolved.setdefault(treatment(damping, negative), OVERFLOW)
        return tau

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(C_λ⁻¹ g_q)ᵀ g_i / N."""
        key = treatment(damping, negative)
        if key not in self._tau:
            part = [
                self._solved(gradients, [key[0]], negative)[0]
                for gradients in self._source.query_parts(self._at_once(1))
            ]
            self._keep(self._tau, [key], np.concatenate(part)[None])
        return self._tau[key]

    def nearest(self, damping: float, negative: str | NegativeCurvature) -> float:
        """Among those that are kept and were solved; itself where there is none."""
        policy = as_policy(negative).name
        solved = [d for (d, p), tau in self._tau.items() if p == policy and np.isfinite(tau).all()]
        if self.refinable or not solved:
            return damping
        return min(solved, key=lambda known: abs(np.log(known / damping)))

    def predicted_effects(
        self, masks: np.ndarray, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> np.ndarray:
        """From what was prepared, if it was."""
        found = self._effects.get(treatment(damping, negative))
        if masks is self._masks and found is not None:
            return found
        return _effects(masks, self.scores(damping, negative))

    def partial_effects(
        self,
        masks: np.ndarray,
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """Of solutions that are zero outside of a subset."""
        found = [
            np.stack(
                [_effects(masks, tau) for tau in self._partial(part, damping, subsets, negative)]
            )
            for part in self._source.query_parts(self._at_once(len(subsets)))
        ]
        return np.concatenate(found, 2)

    def _partial(
        self,
        gradients: Float[Tensor, "P k"],
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature,
    ) -> Float[np.ndarray, "K k N"]:
        whole = self._curvature.solutions(gradients, [damping], negative).x[0]
        basis = self._basis
        if basis is not None:
            whole = basis.to_basis(whole)
        pieces = []
        for subset in subsets:
            own = torch.zeros_like(whole)
            own[subset] = whole[subset]
            pieces.append(own if basis is None else basis.from_basis(own))
        products = self._source.along(torch.cat(pieces, 1)) / self._source.examples
        return _single(products.unflatten(0, (len(subsets), -1)))


@dataclass(frozen=True)
class _Spanned:
    """Some queries, and all training examples, in the Krylov space of these queries."""

    projection: Projection
    train: Float[np.ndarray, "N K"]
    """V g_i."""


class KrylovScorer(Scorer):
    """A rung that is solved in Krylov spaces of its queries, where every λ costs little.

    Training gradients are kept as they lie in those spaces, the spaces themselves are not. Where
    one is too small for a λ there are no scores.
    """

    def __init__(
        self,
        curvature: Curvature,
        solver: MatrixFreeCurvature,
        source: GradientSource,
        eigenvalues: Eigenvalues | None,
    ) -> None:
        """Nothing is solved yet.

        Args:
            curvature: C.
            solver: what solves it.
            source: gradients.
            eigenvalues: what is known of its spectrum.
        """
        self.unsolved: dict[Treatment, str] = {}
        self._curvature, self._solver, self._source = curvature, solver, source
        self._own, self._eigenvalues = curvature.negative, eigenvalues
        self._spans: list[_Spanned] = []
        self._changes: dict[Treatment, list[Tensor]] = {}
        self._sums: tuple[np.ndarray, list[np.ndarray]] | None = None
        self._largest = False

    @property
    def eigenvalues(self) -> Eigenvalues | None:
        """Those that were given."""
        return self._eigenvalues

    def prepare(
        self,
        masks: np.ndarray | None,
        dampings: Sequence[float],
        keep: Sequence[float],
        negative: str | NegativeCurvature,
        progress: bool = False,
    ) -> None:
        """Make spaces that are large enough for these dampings, as far as they can be."""
        new = [d for d in sorted(set(map(float, dampings))) if not self._known(d, negative)]
        if new and not (self._largest or self._solved_all(new, negative)):
            self._make(new, negative, progress)

    def _known(self, damping: float, negative: str | NegativeCurvature) -> bool:
        return treatment(damping, self._own or negative) in self._changes

    def _solved_all(self, dampings: list[float], negative: str | NegativeCurvature) -> bool:
        return bool(self._spans) and all(self._reason(d, negative) is None for d in dampings)

    def _make(
        self, dampings: list[float], negative: str | NegativeCurvature, progress: bool
    ) -> None:
        policy = as_policy(self._own or negative)
        self._spans, self._sums, self.unsolved = [], None, {}
        self._changes = {treatment(damping, policy): [] for damping in dampings}

        def span(space: SharedSpace, change: Tensor) -> None:
            train = _single(self._source.along(space.basis.T)).T
            self._spans.append(_Spanned(space.projection, np.ascontiguousarray(train)))
            for damping, one in zip(dampings, change, strict=True):
                self._changes[treatment(damping, policy)].append(one)

        with _watched(self._solver, self._source.queries, progress):
            for gradients in self._source.query_parts(self._source.queries):
                self._solver.in_spaces(gradients, dampings, policy, span)
        found = sum(one.projection.dimensions for one in self._spans)
        self._largest = found >= self._solver.most_products(self._source.queries)

    def _reason(self, damping: float, negative: str | NegativeCurvature) -> str | None:
        """Why there are no scores; None where there are."""
        policy = as_policy(self._own or negative)
        key = treatment(damping, policy)
        if key not in self._changes:
            function = inverse(damping, policy)
            self._changes[key] = [one.projection.change(function) for one in self._spans]
        for one, change in zip(self._spans, self._changes[key], strict=True):
            said = self._solver.unsolved(damping, change, one.projection.dimensions)
            if said is not None:
                return said
        return None

    def _along(
        self,
        damping: float,
        negative: str | NegativeCurvature,
        rows: Callable[[], list[Float[np.ndarray, "R K"]]],
        count: int,
    ) -> Float[np.ndarray, "Q R"]:
        """Rows of coordinates times the solutions; NaN where there are none."""
        self.prepare(None, [damping], [], negative)
        said = self._reason(damping, negative)
        if said is not None:
            self.unsolved[treatment(damping, negative)] = said
            return np.full((self._source.queries, count), np.nan, np.float32)
        function = inverse(damping, as_policy(self._own or negative))
        with np.errstate(over="ignore", invalid="ignore"):  # told by whoever reads them
            parts = [
                (row @ _single(one.projection.coefficients(function))).T
                for one, row in zip(self._spans, rows(), strict=True)
            ]
            return np.concatenate(parts) / np.float32(self._source.examples)

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """(C_λ⁻¹ g_q)ᵀ g_i / N."""
        rows = lambda: [one.train for one in self._spans]  # noqa: E731
        return self._along(damping, negative, rows, self._source.examples)

    def predicted_effects(
        self, masks: np.ndarray, damping: float, negative: str | NegativeCurvature = "absolute"
    ) -> np.ndarray:
        """Sums over S_j are taken in the spaces, once for all dampings."""

        def rows() -> list[np.ndarray]:
            if self._sums is None or self._sums[0] is not masks:
                weights = masks.astype(np.float32)
                self._sums = masks, [weights @ one.train for one in self._spans]
            return self._sums[1]

        return -self._along(damping, negative, rows, len(masks)).T

    def partial_effects(
        self,
        masks: np.ndarray,
        damping: float,
        subsets: Sequence[Subset],
        negative: str | NegativeCurvature = "absolute",
    ) -> np.ndarray:
        """Of the solutions themselves, for which the solver may have kept its space."""
        solving = SolvingScorer(self._curvature, self._source)
        return solving.partial_effects(masks, damping, subsets, negative)


@contextmanager
def _watched(curvature: Curvature, queries: int, progress: bool) -> Iterator[None]:
    """A bar over the products of a rung that is solved by them; solves may end before it."""
    total = curvature.most_products(queries)
    with (
        tqdm(
            total=total,
            desc="solves",
            unit="product",
            disable=not (progress and total),
            leave=False,
        ) as bar,
        curvature.watched(bar.update),
    ):
        yield


def _reason(found: Solutions, damping: float) -> str:
    """What a solver said of this damping."""
    place = f"at damping {damping:.3g}: "
    return next((said for said in found.failures if said.startswith(place)), "not solved")


class FixedScorer(Scorer):
    """Scores that no damping changes: the baselines."""

    damping_free = True

    def __init__(self, scores: Float[Tensor, "Q N"]) -> None:
        """Keep the scores, in single precision."""
        self._scores = _single(scores)

    def scores(self, damping: float, negative: str | NegativeCurvature = "absolute") -> np.ndarray:
        """The same whatever the damping."""
        return self._scores


def baselines(source: GradientSource, size: int, seed: int) -> dict[str, Scorer]:
    """``identity``, g_q · g_i / N, and ``random``, standard normal scores of P = ``size``."""
    parts = source.query_parts(max(1, SOLUTION_NUMBERS // size))
    flat = torch.cat([source.along(part) for part in parts]) / source.examples
    random = random_scores(len(flat), source.examples, seed)
    return {"identity": FixedScorer(flat), "random": FixedScorer(random)}


def scorers_of(
    rungs: Mapping[str, Curvature],
    gradients: GradientSource,
    eigenvalues: Mapping[str, Eigenvalues | None] = MappingProxyType({}),
    rotated: Rotations | None = None,
    masks: int = 0,
) -> dict[str, Scorer]:
    """The cheapest scorer that each rung and the source of gradients allow.

    Gradients are rotated once for all rungs of one basis, if they fit; a rung that is known by its
    products has its queries in Krylov spaces; others are solved at every damping.

    Args:
        rungs: name → C.
        gradients: of queries and training examples.
        eigenvalues: name → what is known of the spectrum of a rung that is solved; default its
            own, where it has an eigenbasis.
        rotated: gradients in bases where they have been rotated before; new ones are added.
        masks: subsets whose effects will be asked for; 0 if that is not known.
    """
    rotated = {} if rotated is None else rotated
    found: dict[str, Scorer] = {}
    for name, rung in rungs.items():
        basis, solver = rung.eigenbasis, rung.by_spaces
        if basis is not None and basis.basis_key() not in rotated:
            fitting = RotatedGradients.fitting(basis, gradients, masks)
            if fitting is not None:
                rotated[basis.basis_key()] = fitting
        if basis is not None and basis.basis_key() in rotated:
            found[name] = SpectralScorer(basis.spectrum(), rotated[basis.basis_key()])
        elif solver is not None:
            found[name] = KrylovScorer(rung, solver, gradients, eigenvalues.get(name))
        else:
            found[name] = SolvingScorer(rung, gradients, eigenvalues.get(name))
    return found


def scorer(curvature: Curvature, gradients: Gradients) -> Scorer:
    """The scorer of a single rung."""
    return scorers_of({"": curvature}, gradients)[""]


def _effects(masks: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """NaN where a solution is missing."""
    if np.isnan(tau).all():
        return np.full((len(masks), len(tau)), np.nan, np.float32)
    return summed_effects(masks, tau).astype(np.float32)


def _single(tensor: torch.Tensor) -> np.ndarray:
    return to_numpy(tensor.to(torch.float32))
