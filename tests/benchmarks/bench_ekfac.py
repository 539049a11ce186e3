"""EK-FAC of layers that share weights over positions, against curvlinops; run it as a script.

`python tests/benchmarks/bench_ekfac.py` (needs the extra `oracle`) times what EK-FAC is made of:
Kronecker factors, their eigenbases, and the exact curvature along these (*correction*), K-FAC
*expand* with the sum over all labels (type-2), in float64, on the linear blocks of a small
convolutional network on 8×8 images and of a transformer on 16 tokens. curvlinops 3.0.1 gets the
same parameters and examples, in batches of the size that suits it best. Rounds are interleaved
and minima taken, so that a disturbance does not fall on one side only. The results are compared
as well: both libraries compute the same numbers. Seconds are those of the processor, of all
threads together, so that other programs on the machine count little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from decomposition import Problem
from decomposition.curvature.factors import ggn_diagonals, kronecker_bases, kronecker_factors
from decomposition.layers import LinearBlock

N, ROUNDS = 1000, 3
BATCHES = (100, 250, 1000)
STAGES = ("factors", "basis", "correction")


def cnn() -> Problem:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    return _problem(model, torch.randn(N + 4, 1, 8, 8), 10)


class Block(nn.Module):
    """Self-attention and two dense layers, each on normalised inputs and added to them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norms[0](x)
        scores = self.query(h) @ self.key(h).mT / h.shape[-1] ** 0.5
        x = x + self.out(scores.softmax(-1) @ self.value(h))
        return x + self.down(torch.tanh(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    def __init__(self, tokens: int, length: int, width: int, blocks: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Linear(width, tokens)

    def forward(self, x: Tensor) -> Tensor:
        h = self.token(x) + self.place(torch.arange(x.shape[1]))
        return self.head(self.blocks(h).mean(1))


def transformer() -> Problem:
    return _problem(Transformer(20, 16, 24, 2), torch.randint(0, 20, (N + 4, 16)), 20)


def _problem(model: nn.Module, x: Tensor, classes: int) -> Problem:
    y = torch.randint(0, classes, (N + 4,))
    x = x.double() if x.is_floating_point() else x
    return Problem(model.double(), nn.CrossEntropyLoss(), (x[:N], y[:N]), (x[N:], y[N:]))


def timed(action: Callable[[], Any], spent: list[float]) -> Any:
    start = time.process_time()
    result = action()
    spent.append(time.process_time() - start)
    return result


def ours(problem: Problem) -> tuple[np.ndarray, dict[str, Tensor]]:
    spent: list[float] = []
    factors = timed(lambda: kronecker_factors(problem), spent)
    bases = timed(lambda: kronecker_bases(problem, factors), spent)
    diagonals = timed(lambda: ggn_diagonals(problem, bases), spent)
    return np.array(spent), diagonals


def theirs(problem: Problem, batch: int) -> tuple[np.ndarray, dict[str, Tensor]]:
    import curvlinops

    model = problem.double_model()
    x, y = problem.train
    assert isinstance(x, Tensor)
    data = [(x[i : i + batch], y[i : i + batch]) for i in range(0, N, batch)]
    blocks = [block.name for block in problem.blocks if isinstance(block, LinearBlock)]
    parameters = [p for name in blocks for p in model.get_submodule(name).parameters()]
    operator = curvlinops.EKFACLinearOperator(
        model,
        nn.CrossEntropyLoss(),
        parameters,
        data,
        fisher_type="type-2",
        separate_weight_and_bias=False,
        check_deterministic=False,
    )
    spent: list[float] = []
    timed(operator.compute_kronecker_factors, spent)
    timed(operator._compute_eigenvectors, spent)
    timed(operator.compute_eigenvalue_correction, spent)
    return np.array(spent), operator._corrected_eigenvalues


def _gap(mine: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of sorted eigenvalues over the largest eigenvalue of the layer."""
    return max(
        float((mine[name].flatten().sort()[0] - other[name].flatten().sort()[0]).abs().max())
        / float(mine[name].max())
        for name in mine
    )


def main() -> None:
    torch.manual_seed(0)
    print(f"N = {N:,}, float64, {torch.get_num_threads()} thread(s); CPU seconds, best of {ROUNDS}")
    print(f"{'model':12} {'':12}" + "".join(f"{stage:>12}" for stage in (*STAGES, "all")))
    for problem, name in ((cnn(), "CNN"), (transformer(), "transformer")):
        mine: list[np.ndarray] = []
        others: dict[int, list[np.ndarray]] = {batch: [] for batch in BATCHES}
        gap = 0.0
        for _ in range(ROUNDS):
            spent, values = ours(problem)
            mine.append(spent)
            for batch in BATCHES:
                spent, other = theirs(problem, batch)
                others[batch].append(spent)
                gap = max(gap, _gap(values, other))
        best = _with_sum(mine)
        batch = min(BATCHES, key=lambda size: _with_sum(others[size])[-1])
        reference = _with_sum(others[batch])
        for label, row in (
            ("ours", best),
            ("curvlinops", reference),
            ("ratio", reference / best),
        ):
            print(f"{name:12} {label:12}" + "".join(f"{value:12.3f}" for value in row))
        print(f"{'':12} curvlinops in batches of {batch}; eigenvalues differ by {gap:.0e}")


def _with_sum(rounds: list[np.ndarray]) -> np.ndarray:
    best = min(rounds, key=lambda spent: float(spent.sum()))
    return np.append(best, best.sum())


if __name__ == "__main__":
    main()
