"""From a table to a Problem: split, subset, standardise, noise, network: in this order.

Inputs (and regression targets) are standardised on the training rows that are kept, because a
smaller data set knows nothing of the rows it lost. Noise comes last: it is measured in standard
deviations of the clean target, and losses at different noise levels keep the same units. Queries
are never made noisy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems.network import ACTIVATIONS, fitting, mlp
from decomposition.problems.noise import noisy_targets, wrong_labels
from decomposition.problems.table import Defaults, Table, check_classes, check_seed, split
from decomposition.problems.variant import Variant, varied_name
from decomposition.recipe import Recipe


def tabular_problem(
    table: Table,
    defaults: Defaults,
    seed: int = 0,
    recipe: Recipe | None = None,
    variant: Variant | None = None,
    quick: bool = False,
) -> Problem:
    """The problem of predicting a table's targets with a multilayer perceptron.

    Args:
        table: the data.
        defaults: what to use where nothing else is asked for.
        seed: seed of the split, the initialisation, the noise and the base model's order.
        recipe: training recipe; default the problem's own, at this seed.
        variant: changes to network and data.
        quick: a smaller network, for a first look.

    Raises:
        ProblemError: a negative seed, too few rows, one class only, or a rate out of range.
    """
    check_seed(seed)
    variant = variant or Variant()
    rows = split(table, defaults, seed, variant.examples, quick)
    (x, y), (query_x, query_y) = rows.train, rows.query
    if table.standardise:
        x, query_x = standardised(x, query_x)
    if table.classes is None:
        outputs = y.shape[1]
        if table.standardise:
            y, query_y = standardised(y, query_y)
        if not np.ptp(y, axis=0).all():
            raise ProblemError(
                f"{table.place}: the target of the {len(y)} training rows is constant, so there is "
                "nothing to fit: choose another target, or keep more examples"
            )
        y = noisy_targets(y, variant.label_noise, seed)
    else:
        outputs = table.classes
        check_classes(table, y)
        y = wrong_labels(y, outputs, variant.label_noise, seed)
    hidden = variant.hidden
    if hidden is None:
        hidden = defaults.quick_hidden if quick else defaults.hidden
    widths = (x.shape[1], *hidden, outputs)
    activation = variant.activation or defaults.activation
    inputs = partial(_single, table, names=table.columns)
    targets = partial(_single, table) if table.classes is None else _labels
    return Problem(
        model=fitting(table.place, lambda: mlp(widths, ACTIVATIONS[activation], seed)),
        loss=nn.MSELoss() if table.classes is None else nn.CrossEntropyLoss(),
        train=(inputs(x, "a training input"), targets(y, "a training target")),
        query=(inputs(query_x, "a query's input"), targets(query_y, "a query's target")),
        recipe=recipe or replace(defaults.recipe, seed=seed),
        name=varied_name(table.name, variant, "-".join(map(str, widths)), quick),
        allow_query_in_train=table.allow_query_in_train,
        display=table.display,
    )


def _labels(labels: np.ndarray, what: str) -> Tensor:
    return torch.as_tensor(labels, dtype=torch.int64)


def standardised(
    train: np.ndarray, query: np.ndarray
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "q d"]]:
    """(x − mean) / std with the training rows' own; columns constant on them become 0.

    Columns are brought to magnitude 1 by a power of two first, which rounds nothing: squares of
    1e200 and of 1e-200 are no doubles.
    """
    train, query = train.astype(np.float64), query.astype(np.float64)
    exponent = -np.frexp(np.abs(train).max(0))[1]
    with np.errstate(over="ignore"):  # a query may lie far from all training rows
        train, query = np.ldexp(train, exponent), np.ldexp(query, exponent)
        mean, std = train.mean(0), train.std(0)
        constant = (train == train[:1]).all(0)  # rounding can leave them a tiny deviation
        scale = np.where(constant, 1.0, std)
        train, query = (train - mean) / scale, (query - mean) / scale
    train[:, constant] = query[:, constant] = 0.0
    return train, query


def _single(table: Table, rows: np.ndarray, what: str, names: Sequence[str] = ()) -> Tensor:
    """Rows in single precision.

    Raises:
        ProblemError: a number is too large for it; the message says where.
    """
    with np.errstate(over="ignore"):
        single = rows.astype(np.float32)
    bad = np.argwhere(~np.isfinite(single))
    if len(bad):
        row, column = bad[0]
        name = repr(names[column]) if names else str(column)
        raise ProblemError(
            f"{table.place}: {what}, column {name}: {rows[row, column]:g} is more than single "
            "precision holds, in standard deviations of the training rows: leave that row or that "
            "column out"
        )
    return torch.as_tensor(single)
