"""Products with derivatives against plain double backward and the rate of matrix products.

`python -m tests.benchmarks.bench_products` times a column of H v, G v, block products, J v and
Jᵀ u with 1, 16 and 64 columns, and one H v by `torch.autograd` over all examples at once, in
float64, which is the rival of them all. The floor of a column of an MLP is 4 N P operations (half
of it for J v and Jᵀ u) at the rate of a product of its first layer that is measured just before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from torch import nn

from decomposition import Problem
from decomposition.curvature.graphs import Graphs
from decomposition.curvature.jacobian import SweptRows
from decomposition.curvature.products import (
    block_ggn_product,
    block_hessian_product,
    ggn_product,
    hessian_product,
)
from decomposition.inputs import double
from tests.benchmarks.measuring import (
    Kept,
    Row,
    in_turn,
    seconds_of_product,
    thread_counts,
    threads,
)
from tests.benchmarks.networks import NETWORKS

ROUNDS, ENOUGH = 4, 3.0
EXAMPLES = {"MLP": 5000, "CNN": 500, "transformer": 100}
COLUMNS, PRECISIONS = (1, 16, 64), (torch.float64, torch.float32)
RIVAL = "H v by double backward"


def double_backward(problem: Problem) -> Callable[[], object]:
    """One H v from nothing, as one would write it."""
    model, (x, y) = problem.double_model(), problem.train
    x, parameters = double(x), list(model.parameters())
    v = [torch.randn_like(p) for p in parameters]

    def product() -> object:
        loss = nn.functional.cross_entropy(model(x), y)
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        return torch.autograd.grad(gradient, parameters, v)

    return product


def products(problem: Problem, dtype: torch.dtype) -> dict[str, tuple[Callable, int]]:
    """What multiplies, and the length of what it multiplies."""
    rows, p = SweptRows(Graphs(problem, dtype)), problem.num_parameters
    return {
        "H v": (hessian_product(problem, dtype), p),
        "G v": (ggn_product(problem, dtype), p),
        "block H v": (block_hessian_product(problem, dtype), p),
        "block G v": (block_ggn_product(problem, dtype), p),
        "J v": (rows.forward, p),
        "Jᵀ u": (rows.transposed, rows.count),
    }


def measure(name: str, problem: Problem, kept: Kept) -> None:
    """Every product in turn with the rival, at one precision and number of columns at a time."""
    work = 2 * problem.num_examples * problem.num_parameters
    rival = double_backward(problem)
    for dtype in PRECISIONS:
        rate = seconds_of_product(5000, 784, 128, dtype) / 2  # of one operation
        named = str(dtype).removeprefix("torch.")
        for count in COLUMNS:
            ways: dict[str, Callable[[], object]] = {RIVAL: rival}
            for what, (product, length) in products(problem, dtype).items():
                kind = torch.float64 if "J" not in what else dtype
                v = torch.randn(length, count, dtype=kind)
                ways[what] = lambda product=product, v=v: product(v)
            best = in_turn(ways, ROUNDS, ENOUGH)
            other = best.pop(RIVAL)
            for what, seconds in best.items():
                floor = (1 if "J" in what else 2) * work * rate if problem.plain else None
                label = f"{what}, {named}, a column of {count}"
                row = Row(label, name, torch.get_num_threads(), seconds / count, other, floor)
                kept.add(row)


def main(names: list[str]) -> None:
    torch.manual_seed(0)
    kept = Kept("products")
    for name in names or NETWORKS:
        for count in thread_counts():
            with threads(count):
                measure(name, NETWORKS[name](EXAMPLES[name]), kept)


if __name__ == "__main__":
    main(sys.argv[1:])
