"""From rows with class labels to the tensors of a Problem: split, noise; nothing standardised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from decomposition.errors import ProblemError
from decomposition.problems.noise import wrong_labels
from decomposition.problems.table import Defaults, Table, check_classes, check_seed, split
from decomposition.problems.variant import Variant


@dataclass(frozen=True, eq=False)
class Labelled:
    """Training rows and queries, each with its labels."""

    train: tuple[Tensor, Tensor]
    query: tuple[Tensor, Tensor]


def labelled(
    table: Table,
    defaults: Defaults,
    seed: int,
    variant: Variant,
    queries: int | None = None,
    quick: bool = False,
) -> Labelled:
    """Split a table of class labels, keep the rows asked for, and make training labels wrong.

    Args:
        table: the data; its rows go into the model as they are, floats in single precision.
        defaults: how much to keep where nothing else is asked for.
        seed: of the split and the wrong labels.
        variant: how many training rows to keep, and the fraction of wrong labels.
        queries: how many queries to keep, in place of the problem's own number.
        quick: keep as many training rows as are enough for a first look.

    Raises:
        ProblemError: a negative seed, more rows than there are, one class only, or a rate
            outside [0, 1].
    """
    check_seed(seed)
    kept = defaults if queries is None else replace(defaults, queries=queries)
    rows = split(table, kept, seed, variant.examples, quick)
    (x, y), (query_x, query_y) = rows.train, rows.query
    if queries is not None and queries > len(query_y):
        raise ProblemError(
            f"{table.place} holds {len(query_y)} rows back for queries, but queries={queries} asks "
            "for more"
        )
    check_classes(table, y)
    assert table.classes is not None
    y = wrong_labels(y, table.classes, variant.label_noise, seed)
    return Labelled((_inputs(x), torch.as_tensor(y)), (_inputs(query_x), torch.as_tensor(query_y)))


def _inputs(rows: np.ndarray) -> Tensor:
    tensor = torch.as_tensor(rows)
    return tensor.float() if tensor.is_floating_point() else tensor
