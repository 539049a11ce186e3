"""What the choices of an implementation cost: effects, interactions and shares of crossed factors.

A factor is a choice with its levels, the first of which the others are held against. A cell takes
one level of every factor. From the cells' values y, larger being better,

    main effect of a       mean over the other factors of y(first level) − y(a)
    interaction of a, b    mean over the others of what a costs once b is taken, less what it costs
                           before
    Shapley value          mean over all orders in which the factors go from their first level to
                           that of a target cell, of what each then costs (``shares.lattice``)

A value that hangs on drawn labels is a mean over several draws. A resample adds to what masks and
queries do to it

    Σ_d u_d (y_d − ȳ) / √(D (D − 1)),    u_d Gaussian over an independent χ,

so that an interval is Student's t in the draws with D − 1 degrees of freedom, as over base models;
u_d is shared by all cells that are made of the same labels, which keeps their pairing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decomposition.scores.bootstrap import Draws, over_few
from decomposition.shares.lattice import Lattice
from decomposition.shares.steps import ShareError


@dataclass(frozen=True)
class Factor:
    """A choice."""

    name: str
    levels: tuple[str, ...]
    """The first is the one that the others are held against."""


@dataclass(frozen=True)
class Factorial:
    """Crossed factors, every combination of whose levels is a cell.

    Raises:
        ShareError: a factor has fewer than two levels, or a name stands twice.
    """

    factors: tuple[Factor, ...]

    def __post_init__(self) -> None:
        """Check the names."""
        names = [factor.name for factor in self.factors]
        for factor in self.factors:
            if len(set(factor.levels)) < max(2, len(factor.levels)) or names.count(factor.name) > 1:
                raise ShareError(
                    f"factor {factor.name} ({', '.join(factor.levels)}) needs a name of its own "
                    "and at least two levels, each named once"
                )

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """Level of every factor, the last factor running fastest."""
        return tuple(itertools.product(*(factor.levels for factor in self.factors)))

    def main_effects(self) -> dict[str, NDArray[np.float64]]:
        """``factor: level`` → weights of the cells in its cost against the first level."""
        return {
            f"{factor.name}: {level}": self._product({place: self._against_first(place, level)})
            for place, factor in enumerate(self.factors)
            for level in factor.levels[1:]
        }

    def alone(self) -> dict[str, NDArray[np.float64]]:
        """The same with all other factors at their first level."""
        found = {}
        for place, factor in enumerate(self.factors):
            for level in factor.levels[1:]:
                changed = [other.levels[0] for other in self.factors]
                changed[place] = level
                weights = np.eye(len(self.cells))
                found[f"{factor.name}: {level}"] = (
                    weights[0] - weights[self.cells.index(tuple(changed))]
                )
        return found

    def interactions(self) -> dict[str, NDArray[np.float64]]:
        """``factor: level × factor: level`` → weights of the cells in how much more they cost
        together than each for itself."""
        found = {}
        for one, other in itertools.combinations(range(len(self.factors)), 2):
            pairs = itertools.product(self.factors[one].levels[1:], self.factors[other].levels[1:])
            for a, b in pairs:
                name = f"{self.factors[one].name}: {a} × {self.factors[other].name}: {b}"
                first, second = self._against_first(one, a), self._against_first(other, b)
                found[name] = -self._product({one: first, other: second})  # a cost is minus a value
        return found

    def _against_first(self, place: int, level: str) -> NDArray[np.float64]:
        weights = np.zeros(len(self.factors[place].levels))
        weights[0], weights[self.factors[place].levels.index(level)] = 1.0, -1.0
        return weights

    def _product(self, given: Mapping[int, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Weights of the cells: those given, and the mean over the levels of other factors."""
        weights = np.ones(1)
        for place, factor in enumerate(self.factors):
            mean = np.full(len(factor.levels), 1.0 / len(factor.levels))
            weights = np.outer(weights, given.get(place, mean)).ravel()
        return weights

    def ways(self, target: Sequence[str]) -> tuple[Lattice, tuple[int, ...]]:
        """From the first levels to those of ``target``, one factor at a time, in every order.

        Returns:
            The lattice, for ``lattice_shares``, and the cell of each of its nodes.

        Raises:
            ShareError: the target is no cell, or leaves every factor at its first level.
        """
        if tuple(target) not in self.cells:
            raise ShareError(f"there is no cell {', '.join(target)} of these factors")
        steps = [
            f.name for f, level in zip(self.factors, target, strict=True) if level != f.levels[0]
        ]
        if not steps:
            raise ShareError(f"{', '.join(target)} is where all ways start")
        taken, places = {}, []
        for count in range(len(steps) + 1):
            for some in itertools.combinations(steps, count):
                cell = tuple(
                    level if factor.name in some else factor.levels[0]
                    for factor, level in zip(self.factors, target, strict=True)
                )
                taken[", ".join(cell)] = frozenset(some)
                places.append(self.cells.index(cell))
        return Lattice(taken, tuple(steps)), tuple(places)


@dataclass(frozen=True)
class Drawn:
    """Where the values of one cell stand, and what they were drawn from."""

    columns: tuple[int, ...]
    """One for every draw."""
    source: str = ""
    """Cells of one source are made of the same labels, draw by draw; "": nothing is drawn."""


def over_draws(values: Draws, cells: Sequence[Drawn], seed: tuple[int, ...] = (0,)) -> Draws:
    """Means over the draws of each cell (cells,), whose resamples vary with the draws too.

    Args:
        values: (columns,) with resamples of everything else.
        cells: columns of every cell.
        seed: of the resamples of the draws.

    Raises:
        ShareError: a source has one draw alone, or different numbers of them.
    """
    sizes: dict[str, int] = {}
    for cell in cells:
        count = len(cell.columns)
        if (
            (count != 1)
            if not cell.source
            else (count < 2 or sizes.get(cell.source, count) != count)
        ):
            raise ShareError(
                f"{count} draws of {cell.source or 'what is not drawn'}: give one where nothing is "
                "drawn, else at least two, as many for every cell of a source"
            )
        sizes[cell.source] = count
    resamples = len(values.draws)
    vary = {
        source: over_few(count, resamples, np.random.default_rng((*seed, number)))
        for number, (source, count) in enumerate(sizes.items())
    }
    estimate = np.stack([values.estimate[list(cell.columns)].mean() for cell in cells])
    draws = np.stack([values.draws[:, list(cell.columns)].mean(1) for cell in cells], axis=1)
    for place, cell in enumerate(cells):
        if cell.source:
            apart = values.estimate[list(cell.columns)] - estimate[place]
            count = len(cell.columns)
            draws[:, place] += vary[cell.source] @ apart / np.sqrt(count * (count - 1))
    return Draws(estimate, draws)
