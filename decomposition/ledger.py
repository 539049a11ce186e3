"""What the parts of a computation took, charged to whoever needs them.

Parts that are made once and shared (the matrix of G, Kronecker factors, an eigendecomposition) are
charged in full to everything that asks for them: each account is what would have been spent for it
alone. A part that is asked for inside another belongs to that one; a part that is there already
costs nothing again, and is charged all the same.

Nothing is kept unless a ledger is open: ``spending`` around a computation does no more than look.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch

BUILD, DECOMPOSE, SOLVE, SCORE = PHASES = ("build", "decompose", "solve", "score")
"""Of a rung's cost: the operator, its eigendecompositions, one query at one λ, and the gradients of
all training examples."""


@dataclass(frozen=True)
class Spent:
    """Time of a computation."""

    processor: float = 0.0
    """Seconds of all threads of this process."""
    clock: float = 0.0
    """Seconds on the clock."""

    def __add__(self, other: Spent) -> Spent:
        """Both."""
        return Spent(self.processor + other.processor, self.clock + other.clock)

    def __sub__(self, other: Spent) -> Spent:
        """Without the other."""
        return Spent(self.processor - other.processor, self.clock - other.clock)

    def __mul__(self, share: float) -> Spent:
        """A part of it."""
        return Spent(self.processor * share, self.clock * share)


Account = tuple[Hashable, str]
"""A part and its phase."""


@dataclass
class Ledger:
    """What was spent on every part itself, and which parts it was made of."""

    spent: dict[Account, Spent] = field(default_factory=dict)
    uses: dict[Account, dict[Account, float]] = field(default_factory=dict)
    """Part → what it was made of, and how much of that it has to pay."""
    _open: list[Account] = field(default_factory=list)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Charge what is spent in here."""
        token = _LEDGER.set(self)
        try:
            yield
        finally:
            _LEDGER.reset(token)

    @contextmanager
    def account(self, part: Hashable, phase: str, share: float) -> Iterator[None]:
        """Charge what is spent in here, but for what belongs to parts inside, to this part."""
        one = (part, phase)
        if self._open:
            uses = self.uses.setdefault(self._open[-1], {})
            uses[one] = max(share, uses.get(one, 0.0))
        self._open.append(one)
        start, before = _now(), self._total()
        try:
            yield
        finally:
            inside = self._total() - before
            self.spent[one] = self.spent.get(one, Spent()) + (_now() - start - inside)
            self._open.pop()

    def alone(self, part: Hashable) -> dict[str, Spent]:
        """Phase → what was spent for a part and all that it was made of; phases that it had."""
        found: dict[str, Spent] = {}
        shares = self._shares([one for one in self.spent if one[0] == part])
        for account, share in shares.items():
            mine = self.spent.get(account, Spent()) * share
            found[account[1]] = found.get(account[1], Spent()) + mine
        return found

    def _total(self) -> Spent:
        return sum(self.spent.values(), Spent())

    def _shares(self, roots: list[Account]) -> dict[Account, float]:
        """All that the roots were made of, with the largest share that any way leads to."""
        found: dict[Account, float] = {}
        todo = [(root, 1.0) for root in roots]
        while todo:
            one, share = todo.pop()
            if found.get(one, 0.0) < share:
                found[one] = share
                todo += [(part, share * of) for part, of in self.uses.get(one, {}).items()]
        return found


_LEDGER: ContextVar[Ledger | None] = ContextVar("ledger", default=None)


@contextmanager
def spending(part: Hashable, phase: str = BUILD, share: float = 1.0) -> Iterator[None]:
    """Charge a block to a part, if a ledger is open.

    Args:
        part: its name; the same wherever it is asked for.
        phase: one of PHASES.
        share: how much of the part belongs to what asks for it here, such as the entries of the
            blocks among those of the matrix that they are taken from.
    """
    ledger = _LEDGER.get()
    if ledger is None:
        yield
        return
    with ledger.account(part, phase, share):
        yield


def _now() -> Spent:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return Spent(time.process_time(), time.perf_counter())
