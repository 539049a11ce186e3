"""From rows of data to a Problem: split, subset, standardise, noise, network, in this order.

Inputs (and regression targets) are standardised on the training rows that are kept, because a
smaller data set knows nothing of the rows it lost. Noise comes last: it is measured in standard
deviations of the clean target, and losses at different noise levels keep the same units. Queries
are never made noisy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int, Num
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from decomposition import checks
from decomposition.checks import checked
from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems.networks import ACTIVATIONS, fitting, mlp
from decomposition.problems.variant import Variant, varied_name
from decomposition.recipe import Recipe

NOISE = 1
"""Stream of random numbers for noise; a row keeps its draws whatever the rate and the subset."""


@dataclass(frozen=True, eq=False)
class Table:
    """n rows with d inputs, and their targets: class labels (n,) or numbers (n, C)."""

    name: str
    """Name shown in results."""
    inputs: Num[np.ndarray, "n ..."]
    targets: Num[np.ndarray, "n ..."]
    """Labels 0 … C−1 of shape (n,), or (n, positions); or regression targets (n, C)."""
    classes: int | None
    """Number of classes; None: regression."""
    held_out: tuple[Num[np.ndarray, "q ..."], Num[np.ndarray, "q ..."]] | None = None
    """Query rows that come with the data; None: split them off."""
    standardise: bool = True
    """False where the units of the data mean something (a known truth, pixels, tokens)."""
    allow_query_in_train: bool = False
    """Rows may repeat between queries and training examples."""
    display: Mapping[str, object] = field(default_factory=dict)
    """See Problem.display."""
    columns: Sequence[str] = ()
    """How a message calls the input columns; default their numbers from 0."""
    source: str | None = None
    """The file that it was read from; None: built in."""
    row_name: Callable[[int], str] = "row {}".format
    """How a message calls row i: by what a user finds it in the file."""
    way_out: str = "leave the row or the column out, or fill it in"
    """What to do about numbers that stand for missing values."""

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

    def widths(self, variant: Variant | None, quick: bool) -> tuple[int, ...]:
        """Hidden widths: the variant's, or the problem's own."""
        if variant is not None and variant.hidden is not None:
            return variant.hidden
        return self.quick_hidden if quick else self.hidden


@dataclass(frozen=True)
class Network:
    """A model that is still to be made."""

    sizes: str
    """Shown in the problem's name where a variant has chosen them, such as 64-16-10."""
    make: Callable[[type[nn.Module], int], nn.Module]
    """From the activation function and the seed of the initialisation."""


def problem_of(
    table: Table,
    defaults: Defaults,
    seed: int = 0,
    recipe: Recipe | None = None,
    variant: Variant | None = None,
    quick: bool = False,
    network: Network | None = None,
    queries: int | None = None,
) -> Problem:
    """The problem of predicting a table's targets.

    Args:
        table: the data.
        defaults: what to use where nothing else is asked for.
        seed: seed of the split, the initialisation, the noise and the base model's order.
        recipe: training recipe; default the problem's own, at this seed.
        variant: changes to network and data.
        quick: a smaller network and fewer rows, for a first look.
        network: the model; default a multilayer perceptron of the widths asked for.
        queries: as many queries, in place of the problem's own number.

    Raises:
        ProblemError: a negative seed, more rows than there are, one class only, or a rate out of
            range.
    """
    checked("the seed of a problem", seed, checks.seed, ProblemError)
    variant = variant or Variant()
    kept = defaults if queries is None else replace(defaults, queries=queries)
    (x, y), (query_x, query_y) = split(table, kept, seed, variant.examples, quick)
    if queries is not None and queries > len(query_y):
        raise ProblemError(
            f"{table.place} holds {len(query_y)} rows back for queries, but queries={queries} asks "
            "for more"
        )
    if table.standardise:
        x, query_x = standardised(x, query_x)
        if table.classes is None:
            y, query_y = standardised(y, query_y)
    y = _noisy(table, y, variant.label_noise, seed)
    if network is None:
        outputs = y.shape[1] if table.classes is None else table.classes
        widths = (x.shape[1], *defaults.widths(variant, quick), outputs)
        sizes = "-".join(map(str, widths))
        network = Network(sizes, lambda activation, seed: mlp(widths, activation, seed))
    activation = ACTIVATIONS[variant.activation or defaults.activation]
    tensor, names = partial(_tensor, table), table.columns
    return Problem(
        model=fitting(table.place, lambda: network.make(activation, seed)),
        loss=nn.MSELoss() if table.classes is None else nn.CrossEntropyLoss(),
        train=(tensor(x, "a training input", names), tensor(y, "a training target")),
        query=(tensor(query_x, "a query's input", names), tensor(query_y, "a query's target")),
        recipe=recipe or replace(defaults.recipe, seed=seed),
        name=varied_name(table.name, variant, network.sizes, quick),
        allow_query_in_train=table.allow_query_in_train,
        display=table.display,
    )


Rows = tuple[np.ndarray, np.ndarray]


def split(
    table: Table, defaults: Defaults, seed: int, examples: int | None, quick: bool = False
) -> tuple[Rows, Rows]:
    """Training rows and queries: the queries first, of one permutation of all rows.

    By NumPy's default generator, not scikit-learn's ``train_test_split``: that one's permutation
    (of the older generator, in another order) would be other rows than in every result so far,
    and smaller training sets would not be nested in larger ones.

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
    return (
        (table.inputs[train_rows], table.targets[train_rows]),
        (query[0][query_rows], query[1][query_rows]),
    )


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
        constant = (train == train[:1]).all(0)  # rounding can leave them a tiny deviation
        # by hand for queries: scikit-learn refuses numbers that overflow, without their place
        scaler = StandardScaler().fit(train)
        mean, scale = np.asarray(scaler.mean_), np.asarray(scaler.scale_)
        train, query = ((rows - mean) / scale for rows in (train, query))
    train[:, constant] = query[:, constant] = 0.0
    return train, query


def _noisy(table: Table, targets: np.ndarray, rate: float, seed: int) -> np.ndarray:
    """Training targets with a variant's noise.

    Raises:
        ProblemError: there is nothing to learn from them.
    """
    if table.classes is not None:
        if len(np.unique(targets)) < 2:
            raise ProblemError(
                f"{table.place}: the {len(targets)} training rows are all of one class, so there "
                "is nothing to learn: choose another target, or keep more examples"
            )
        return wrong_labels(targets, table.classes, rate, seed)
    if not np.ptp(targets, axis=0).all():
        raise ProblemError(
            f"{table.place}: the target of the {len(targets)} training rows is constant, so there "
            "is nothing to fit: choose another target, or keep more examples"
        )
    return noisy_targets(targets, rate, seed)


def wrong_labels(
    labels: Int[np.ndarray, "N ..."], classes: int, rate: float, seed: int
) -> Int[np.ndarray, "N ..."]:
    """``labels`` with round(rate · N) of them replaced, uniformly among the other classes.

    What is wrong at a small rate is wrong at a larger one. A row with several labels (one for
    each position) has all of them replaced or none.

    Raises:
        ProblemError: the rate is not a fraction.
    """
    if not 0 <= rate <= 1:
        raise ProblemError(
            f"label_noise is the fraction of wrong labels and must lie in [0, 1], got {rate}"
        )
    # One pair of draws per row, in turn: the first N rows draw the same whatever follows them.
    draws = np.random.default_rng((seed, NOISE)).random((len(labels), 2))
    shift = 1 + np.floor(draws[:, 1] * (classes - 1)).astype(labels.dtype)
    wrong = np.argsort(draws[:, 0], kind="stable")[: round(rate * len(labels))]
    noisy = labels.copy()
    shift = shift.reshape(-1, *(1 for _ in labels.shape[1:]))
    noisy[wrong] = (labels[wrong] + shift[wrong]) % classes
    return noisy


def noisy_targets(
    targets: Float[np.ndarray, "N C"], deviations: float, seed: int
) -> Float[np.ndarray, "N C"]:
    """y + ``deviations`` · std(y) · z with z standard normal and fixed by the seed."""
    z = np.random.default_rng((seed, NOISE)).standard_normal(targets.shape)
    return targets + deviations * targets.std(0) * z


def _tensor(table: Table, rows: np.ndarray, what: str, names: Sequence[str] = ()) -> Tensor:
    """Rows in single precision; labels and tokens as they are.

    Raises:
        ProblemError: a number is too large for it; the message says where.
    """
    if rows.dtype.kind != "f":
        return torch.as_tensor(rows)
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
