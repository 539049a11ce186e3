"""Products with H and G against plain double backward and the rate of matrix products.

`python -m tests.benchmarks.bench_products [results.json]` times, by the clock and in turn within
one round: one H v by `torch.autograd` over all examples at once (the rival, float64), columns of
our products, and one matrix product of the first layer's shape. It does so with the threads that
torch has by default and with one. The floor of a column is 4 N P operations at that rate. Best of
``ROUNDS``; what is kept names the machine and how busy it was, since other programs move ratios.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from decomposition import Problem
from decomposition.curvature.products import ggn_product, hessian_product
from tests.benchmarks.bench_ekfac import cnn, transformer

ROUNDS = 5
COLUMNS = (1, 16)


def mlp(examples: int = 5000) -> Problem:
    """784-128-10, P = 101,770: the size of MNIST's small standard network."""
    x, y = torch.randn(examples + 4, 784), torch.randint(0, 10, (examples + 4,))
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    n = examples
    return Problem(model, nn.CrossEntropyLoss(), (x[:n], y[:n]), (x[n:], y[n:]))


def double_backward(problem: Problem) -> Callable[[], object]:
    """One H v from nothing, as one would write it."""
    model, (x, y) = problem.double_model(), problem.train
    assert isinstance(x, Tensor)
    x = x.double() if x.is_floating_point() else x
    parameters = list(model.parameters())
    v = [torch.randn_like(p) for p in parameters]

    def product() -> object:
        loss = nn.functional.cross_entropy(model(x), y)
        gradient = torch.autograd.grad(loss, parameters, create_graph=True)
        return torch.autograd.grad(gradient, parameters, v)

    return product


def measure(problem: Problem) -> dict[str, float]:
    """Seconds a column of each, interleaved."""
    ways: dict[str, tuple[Callable[[], object], int]] = {
        "double backward": (double_backward(problem), 1)
    }
    for name, make in (("H", hessian_product), ("G", ggn_product)):
        for dtype in (torch.float64, torch.float32):
            product = make(problem, dtype)
            for count in COLUMNS:
                v = torch.randn(problem.num_parameters, count, dtype=torch.float64)
                label = f"{name} {str(dtype).removeprefix('torch.')} {count}"
                ways[label] = (lambda product=product, v=v: product(v), count)
    best = {name: float("inf") for name in ways}
    for _ in range(ROUNDS):
        for name, (work, count) in ways.items():
            start = time.perf_counter()
            work()
            best[name] = min(best[name], (time.perf_counter() - start) / count)
    return best


def rate(dtype: torch.dtype) -> float:
    """Operations in a second of one product of the MLP's first layer."""
    a, b = torch.randn(5000, 784, dtype=dtype), torch.randn(784, 128, dtype=dtype)
    best = float("inf")
    for _ in range(2 * ROUNDS):
        start = time.perf_counter()
        torch.matmul(a, b)
        best = min(best, time.perf_counter() - start)
    return 2.0 * 5000 * 784 * 128 / best


def machine() -> dict[str, object]:
    """Cores, model of the processor, versions, and the load when measuring began."""
    model = platform.processor()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if "model name" in x), model)
    return {
        "cores": os.cpu_count(),
        "processor": model,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
    }


def main(path: str | None) -> None:
    torch.manual_seed(0)
    kept: dict[str, object] = {"machine": machine(), "seconds_per_column": []}
    found: list[dict[str, object]] = []
    default = torch.get_num_threads()
    for threads in dict.fromkeys((default, 1)):
        torch.set_num_threads(threads)
        for name, problem in (("MLP", mlp()), ("CNN", cnn()), ("transformer", transformer())):
            work = 4.0 * problem.num_examples * problem.num_parameters
            seconds = measure(problem)
            rival = seconds["double backward"]
            print(f"\n{name}, {threads} thread(s): double backward {rival:.4f} s")
            for way, value in seconds.items():
                dtype = torch.float32 if "float32" in way else torch.float64
                floor = work / rate(dtype) if name == "MLP" else float("nan")
                print(f"  {way:16} {value:.4f} s  {rival / value:5.2f}×  floor {floor:.4f} s")
            found.append({"model": name, "threads": threads, **seconds})
    kept["seconds_per_column"] = found
    if path is not None:
        Path(path).write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
