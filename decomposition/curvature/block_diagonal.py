"""A curvature without coupling between layers: blocks of any form, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from decomposition.curvature.damped import FactoredDamping
from decomposition.curvature.dense import DenseCurvature
from decomposition.curvature.estimate import Estimate
from decomposition.curvature.operator import (
    PROBES,
    Curvature,
    Diagonalised,
    NotAvailableError,
    Solutions,
    Solve,
)
from decomposition.damping import NegativeCurvature
from decomposition.errors import DampingError, DecompositionError


class BlockDiagonal(Diagonalised):
    """⊕_l C_l with the blocks in parameter order; it has an eigenbasis if all of them have one.

    Args:
        blocks: name → curvature of that layer, or its symmetric matrix, in parameter order.

    Raises:
        DecompositionError: there is none, or they differ in their devices or in their policies.
    """

    coupled = False

    def __init__(self, blocks: Mapping[str, Curvature | Tensor]) -> None:
        """Lay the blocks out one after the other."""
        if not blocks:
            raise DecompositionError("a block-diagonal curvature needs at least one block")
        self._blocks: dict[str, Curvature] = {
            name: block if isinstance(block, Curvature) else DenseCurvature(block)
            for name, block in blocks.items()
        }
        every = list(self._blocks.values())
        self.size = sum(block.size for block in every)
        self.matrix_free = any(block.matrix_free for block in every)
        self.definite = all(block.definite for block in every)
        places = {str(block.device) for block in every}
        if len(places) > 1:
            raise DecompositionError(f"the blocks lie on {' and '.join(sorted(places))}: use one")
        self.device = every[0].device
        self.notes = tuple(dict.fromkeys(note for block in every for note in block.notes))
        policies = {block.negative for block in every}
        if len(policies) > 1:
            raise DecompositionError(
                "some blocks have a policy of their own for negative eigenvalues: give it to the "
                "whole curvature, UnderPolicy(BlockDiagonal(…), policy)"
            )
        self.negative = policies.pop()

    @property
    def eigenbasis(self) -> Diagonalised | None:
        """Itself if every block has one."""
        return None if any(b.eigenbasis is None for b in self._blocks.values()) else self

    @property
    def record(self) -> tuple[Solve, ...]:
        """The blocks' iterative solves."""
        return tuple(one for block in self._blocks.values() for one in block.record)

    def most_products(self, vectors: int) -> int:
        """Those of all blocks."""
        return sum(block.most_products(vectors) for block in self._blocks.values())

    @contextmanager
    def watched(self, told: Callable[[int], object]) -> Iterator[None]:
        """Within it, ``told`` hears of the products of every block."""
        with ExitStack() as stack:
            for block in self._blocks.values():
                stack.enter_context(block.watched(told))
            yield

    def diagonal_blocks(self) -> Mapping[str, Curvature]:
        """The blocks themselves."""
        return self._blocks

    def by_factors(self) -> BlockDiagonal:
        """Of the layers that have factors; λI on the others.

        Raises:
            NotAvailableError: none of them has.
        """
        made, refused = dict(self._blocks), 0
        for name, block in self._blocks.items():
            try:
                made[name] = block.by_factors()
            except NotAvailableError:
                refused += 1
        if refused == len(made):
            raise NotAvailableError("no layer is a Kronecker product: there are no factors to damp")
        found = BlockDiagonal(made)
        found.notes = self.notes
        return found

    def dense(self) -> Tensor:
        """The (P, P) matrix, zero between layers."""
        out = torch.zeros(self.size, self.size, dtype=torch.float64, device=self.device)
        start = 0
        for block in self._blocks.values():  # one at a time, to hold no block twice
            part = slice(start, start := start + block.size)
            out[part, part] = block.dense()
        return out

    def eigenvalues(self) -> Tensor:
        """Eigenvalues of all blocks, ascending."""
        return torch.cat([block.eigenvalues() for block in self._blocks.values()]).sort().values

    def trace(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """Σ_l tr C_l."""
        parts = [block.trace(probes, seed) for block in self._blocks.values()]
        return Estimate(sum(parts), math.hypot(*(part.error for part in parts)))

    def frobenius_norm(self, probes: int = PROBES, seed: int = 0) -> Estimate:
        """√Σ_l ‖C_l‖²_F."""
        parts = [block.frobenius_norm(probes, seed) for block in self._blocks.values()]
        norm = math.hypot(*parts)
        errors = math.hypot(*(part * part.error for part in parts))
        return Estimate(norm, errors / norm if norm else 0.0)

    def basis_values(self) -> Tensor:
        """Eigenvalues of the first block, then of the second, …"""
        return torch.cat([block.basis_values() for block in self._bases()])

    def factored_damping(self) -> FactoredDamping | None:
        """That of the first block, then of the second, …; λ alone for blocks without."""
        parts = [(block.size, block.factored_damping()) for block in self._bases()]
        if all(part is None for _, part in parts):
            return None
        return FactoredDamping.joined(
            [part or FactoredDamping.none(n, self.device) for n, part in parts]
        )

    def basis_key(self) -> object:
        """The blocks' bases."""
        return tuple(block.basis_key() for block in self._bases())

    def to_basis(self, v: Tensor) -> Tensor:
        """Vᵀ v, block by block."""
        return self._each(v, self._bases(), lambda block, part: block.to_basis(part))

    def from_basis(self, c: Tensor) -> Tensor:
        """V c, block by block."""
        return self._each(c, self._bases(), lambda block, part: block.from_basis(part))

    def _bases(self) -> list[Diagonalised]:
        found = {name: block.eigenbasis for name, block in self._blocks.items()}
        known = [one for one in found.values() if one is not None]
        if len(known) < len(found):
            without = [name for name, one in found.items() if one is None]
            raise NotAvailableError(
                f"blocks {', '.join(without)} have no eigenbasis: solve with them, or raise "
                "--memory until they are formed"
            )
        return known

    def _matvec(self, v: Tensor) -> Tensor:
        return self._each(v, self._blocks.values(), lambda block, part: block.matvec(part))

    def _solve(self, v: Tensor, damping: float, negative: NegativeCurvature) -> Tensor:
        if self.eigenbasis is not None:
            return super()._solve(v, damping, negative)
        self._check_policy(negative)
        return self._each(
            v, self._blocks.values(), lambda block, part: block.solve(part, damping, negative)
        )

    def _solutions(
        self, v: Tensor, dampings: list[float], negative: NegativeCurvature
    ) -> Solutions:
        """Of every block; where one of them has none, there is none."""
        if self.eigenbasis is not None:
            return super()._solutions(v, dampings, negative)
        self._check_policy(negative)
        parts, start = [], 0
        for block in self._blocks.values():
            some = v[start : (start := start + block.size)]
            parts.append(block.solutions(some, dampings, negative))
        error = torch.stack([part.error for part in parts]).amax(0)
        x = torch.cat([part.x for part in parts], 1)
        x = torch.where(torch.isfinite(error)[:, None], x, torch.nan)
        failures = dict.fromkeys(text for part in parts for text in part.failures)
        return Solutions(x, error, tuple(failures))

    def _check_policy(self, negative: NegativeCurvature) -> None:
        """A policy that needs the whole spectrum cannot be followed block by block."""
        if not (negative.one_by_one or self.definite):
            raise DampingError(
                f"negative={negative.name!r} takes the lowest eigenvalue of all blocks, and some "
                "of them are not known by their eigenvalues: use absolute, clip or signed"
            )

    def _each(self, v: Tensor, blocks, apply: Callable) -> Tensor:
        found, start = [], 0
        for block in blocks:
            found.append(apply(block, v[start : (start := start + block.size)]))
        return torch.cat(found)
