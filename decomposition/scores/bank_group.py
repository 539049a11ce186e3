"""Groups /bank, /examples and /top: what was measured, and the examples to show."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import xarray as xr
from torch import Tensor

from decomposition.linalg import to_numpy
from decomposition.problem import Problem
from decomposition.retraining.bank import Bank
from decomposition.retraining.supplied import SuppliedBank
from decomposition.scores.agreement import top_examples
from decomposition.scores.scorer import Scorer

TOP = 10
LARGEST_EXAMPLES = 4_000_000
"""Inputs with more numbers than this are not copied into the result."""


def bank_group(bank: Bank, problem: Problem) -> xr.Dataset:
    """Masks and outputs of every retrained model, from which any rung can be scored again."""
    name, values = _truth(bank)
    data = xr.Dataset(
        {
            "masks": (("mask", "train"), bank.masks.astype(np.int8)),
            name: (("mask", "repeat", "query", "output")[: values.ndim], values),
            "base_outputs": (("query", "output"), bank.base_outputs),
        },
        {
            "mask": np.arange(bank.masks.shape[0]),
            "train": np.arange(bank.masks.shape[1]),
            "repeat": np.arange(values.shape[1]),
            "query": np.arange(values.shape[2]),
            "output": np.arange(bank.base_outputs.shape[1]),
        },
    )
    targets = to_numpy(problem.query[1])
    if targets.ndim == 1:
        data["targets"] = ("query", targets)
    else:  # numbers for every output, or a label for every position, in the order of the outputs
        targets = targets.reshape(len(targets), -1)
        each = "output" if targets.shape[1] == data.sizes["output"] else "position"
        data["targets"] = (("query", each), targets)
        data.coords[each] = np.arange(targets.shape[1])
    if bank.second_outputs is not None:
        data["second_outputs"] = (("second_mask", "query", "output"), bank.second_outputs)
        data.coords["second_mask"] = np.arange(len(bank.second_outputs))
    elif isinstance(bank, SuppliedBank) and bank.second_losses is not None:
        data["second_losses"] = (("second_mask", "query"), bank.second_losses)
        data.coords["second_mask"] = np.arange(len(bank.second_losses))
    return data


def _truth(bank: Bank) -> tuple[str, np.ndarray]:
    if bank.outputs is not None:
        return "outputs", bank.outputs
    assert isinstance(bank, SuppliedBank)
    assert bank.losses is not None
    return "losses", bank.losses


def examples_group(problem: Problem) -> xr.Dataset | None:
    """Inputs and labels of all examples, if they are few numbers in one tensor; else None."""
    if not (isinstance(problem.train[0], Tensor) and isinstance(problem.query[0], Tensor)):
        return None
    train, query = (to_numpy(x.reshape(len(x), -1)) for x in (problem.train[0], problem.query[0]))
    if train.size + query.size > LARGEST_EXAMPLES or problem.train[1].ndim > 1:
        return None
    return xr.Dataset(
        {
            "train_inputs": (("train", "feature"), train.astype(np.float32)),
            "query_inputs": (("query", "feature"), query.astype(np.float32)),
            "train_targets": ("train", to_numpy(problem.train[1])),
            "query_targets": ("query", to_numpy(problem.query[1])),
        },
        {
            "train": np.arange(len(train)),
            "query": np.arange(len(query)),
            "feature": np.arange(train.shape[1]),
        },
        {"display": json.dumps(dict(problem.display))},
    )


def top_group(
    scorers: Mapping[str, Scorer], dampings: Mapping[str, float], negative: str
) -> xr.Dataset:
    """The training examples that most help each query, by every rung at its own damping.

    Of a rung that is solved damping by damping, at the nearest one that was.
    """
    found = []
    for name in dampings:
        rung = scorers[name]
        scores = rung.scores(rung.nearest(dampings[name], negative), negative)
        best = top_examples(scores, min(TOP, scores.shape[1]))
        found.append((best, np.take_along_axis(scores, best, 1)))
    indices, values = (np.stack([pair[side] for pair in found]) for side in (0, 1))
    return xr.Dataset(
        {
            "top_train": (("rung", "query", "rank"), indices.astype(np.int64)),
            "top_score": (("rung", "query", "rank"), values),
        },
        {
            "rung": list(dampings),
            "query": np.arange(indices.shape[1]),
            "rank": np.arange(1, indices.shape[2] + 1),
        },
    )
