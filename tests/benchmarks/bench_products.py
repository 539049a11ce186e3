"""Products with derivatives against plain double backward and the rate of matrix products.

`python -m tests.benchmarks.bench_products` times a column of H v, G v, block products, J v and
Jᵀ u with 1, 16 and 64 columns, and their rivals, by `torch.autograd` over all examples at once in
float64: one H v, and of block products one H_ll v_l for every block, which share the gradient. The
floor of a column of an MLP is 4 N P operations (half
of it for J v and Jᵀ u) at the rate of a product of its first layer that is measured just before.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import torch
from torch import nn

from decomposition import Problem
from decomposition.curvature.block_products import block_ggn_product
from decomposition.curvature.graphs import Graphs
from decomposition.curvature.jacobian import SweptRows
from decomposition.curvature.products import (
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
WHOLE, BLOCKS = "H v by double backward", "block H v by double backward"


def double_backward(problem: Problem, groups: list[list[int]]) -> Callable[[], object]:
    """A product with H of every group of parameters, from nothing, as one would write it."""
    model, (x, y) = problem.double_model(), problem.train
    x, parameters = double(x), list(model.parameters())
    v = [torch.randn_like(p) for p in parameters]

    def product() -> object:
        loss = nn.functional.cross_entropy(model(x), y)
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        return [
            torch.autograd.grad(
                [gradient[i] for i in group],
                [parameters[i] for i in group],
                [v[i] for i in group],
                retain_graph=group is not groups[-1],
            )
            for group in groups
        ]

    return product


def by_blocks(problem: Problem) -> list[list[int]]:
    """The parameters of every block; those of several blocks in each of them."""
    sizes = [p.numel() for p in problem.model.parameters()]
    ends = list(itertools.accumulate(sizes))
    spans = [(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return [
        [i for i, (start, end) in enumerate(spans) if start < b.slice.stop and end > b.slice.start]
        for b in problem.blocks
    ]


def products(problem: Problem, dtype: torch.dtype) -> dict[str, tuple[Callable, int]]:
    """What multiplies, and the length of what it multiplies.

    Blocks of H become matrices as they are multiplied, so that every round has a new product, which
    has measured its batches on one column.
    """
    rows, p = SweptRows(Graphs(problem, dtype)), problem.num_parameters
    new = [block_hessian_product(problem, dtype) for _ in range(ROUNDS)]
    for product in new:
        product(torch.ones(p, 1, dtype=torch.float64))
    fresh = iter(new)
    return {
        "H v": (hessian_product(problem, dtype), p),
        "G v": (ggn_product(problem, dtype), p),
        "block H v": (lambda v: next(fresh)(v), p),
        "block G v": (block_ggn_product(problem, dtype), p),
        "J v": (rows.forward, p),
        "Jᵀ u": (rows.transposed, rows.count),
    }


def measure(name: str, problem: Problem, kept: Kept) -> None:
    """Every product in turn with the rival, at one precision and number of columns at a time."""
    work = 2 * problem.num_examples * problem.num_parameters
    every = [list(range(len(list(problem.model.parameters()))))]
    rivals = {
        WHOLE: double_backward(problem, every),
        BLOCKS: double_backward(problem, by_blocks(problem)),
    }
    for dtype in PRECISIONS:
        rate = seconds_of_product(5000, 784, 128, dtype) / 2  # of one operation
        named = str(dtype).removeprefix("torch.")
        for count in COLUMNS:
            ways: dict[str, Callable[[], object]] = dict(rivals)
            for what, (product, length) in products(problem, dtype).items():
                kind = torch.float64 if "J" not in what else dtype
                v = torch.randn(length, count, dtype=kind)
                ways[what] = lambda product=product, v=v: product(v)
            best = in_turn(ways, ROUNDS, ENOUGH)
            others = {rival: best.pop(rival) for rival in rivals}
            for what, seconds in best.items():
                other = others[BLOCKS if "block" in what else WHOLE]
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
