"""Data as read or drawn, before the split: rows of inputs with their targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Num

from decomposition import checks
from decomposition.checks import checked
from decomposition.errors import ProblemError
from decomposition.recipe import Recipe


@dataclass(frozen=True, eq=False)
class Table:
    """n rows with d inputs, and their targets: class labels (n,) or numbers (n, C)."""

    name: str
    """Name shown in results."""
    inputs: Num[np.ndarray, "n d"]
    targets: Num[np.ndarray, "n ..."]
    """Labels 0 … C−1 of shape (n,), or regression targets (n, C)."""
    classes: int | None
    """Number of classes; None: regression."""
    held_out: tuple[Num[np.ndarray, "q d"], Num[np.ndarray, "q ..."]] | None = None
    """Query rows that come with the data; None: split them off."""
    standardise: bool = True
    """False where the units of the data mean something (a known truth)."""
    allow_query_in_train: bool = False
    """Rows may repeat between queries and training examples."""
    display: Mapping[str, object] = field(default_factory=dict)
    """See Problem.display."""
    columns: Sequence[str] = ()
    """How a message calls the input columns; default their numbers from 0."""
    source: str | None = None
    """The file that it was read from; None: built in."""

    @property
    def place(self) -> str:
        """Where an error message says that the data are: the file, or the name."""
        return self.source or self.name


@dataclass(frozen=True)
class Defaults:
    """Network, recipe and split of a problem when nothing else is asked for."""

    hidden: tuple[int, ...]
    quick_hidden: tuple[int, ...]
    """Hidden widths for a first look."""
    activation: str
    recipe: Recipe = field(default_factory=Recipe)
    """Its seed is replaced by the problem's."""
    query_fraction: float = 0.2
    """Part of the rows that become queries where the data come without them."""
    queries: int | None = None
    """At most this many queries; None: all."""
    examples: int | None = None
    """At most this many training rows unless a variant says how many; None: all."""
    quick_examples: int | None = None
    """The same for a first look."""


@dataclass(frozen=True, eq=False)
class Split:
    """Rows kept: training rows are in the order of the seeded permutation."""

    train: tuple[np.ndarray, np.ndarray]
    query: tuple[np.ndarray, np.ndarray]


def check_seed(seed: int) -> None:
    """Raise ProblemError unless NumPy and PyTorch take this seed."""
    checked("the seed of a problem", seed, checks.seed, ProblemError)


def check_classes(table: Table, labels: np.ndarray) -> None:
    """Raise ProblemError if the training rows that are kept are all of one class."""
    if len(np.unique(labels)) < 2:
        raise ProblemError(
            f"{table.place}: the {len(labels)} training rows are all of one class, so there is "
            "nothing to learn: choose another target, or keep more examples"
        )


def split(
    table: Table, defaults: Defaults, seed: int, examples: int | None, quick: bool = False
) -> Split:
    """Queries first, then the training rows, of one permutation by NumPy's default generator.

    With query rows of their own, the training rows are permuted by ``seed`` and the query rows
    by a generator next to it.

    Raises:
        ProblemError: fewer rows than are asked for or needed.
    """
    n = len(table.inputs)
    order = np.random.default_rng(seed).permutation(n)
    if table.held_out is None:
        held = max(1, round(defaults.query_fraction * n))
        query_rows, train_rows = order[:held], order[held:]
        query = (table.inputs, table.targets)
    else:
        train_rows, query = order, table.held_out
        query_rows = np.random.default_rng((seed, 2)).permutation(len(query[0]))
        held = len(query_rows)
    most = defaults.quick_examples if quick else defaults.examples
    if examples is None:
        examples = len(train_rows) if most is None else min(most, len(train_rows))
    if len(train_rows) < max(examples, 2) or held < 1:
        raise ProblemError(
            f"{table.place} has {len(train_rows)} rows to train on and {held} for queries, but "
            f"{max(examples, 2)} and 1 are needed: ask for fewer examples, or give more data"
        )
    train_rows, query_rows = train_rows[:examples], query_rows[: defaults.queries]
    return Split(
        (table.inputs[train_rows], table.targets[train_rows]),
        (query[0][query_rows], query[1][query_rows]),
    )
