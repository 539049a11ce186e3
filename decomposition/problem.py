"""What is studied: a model, its loss, the training and query data, and how it is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from decomposition.errors import ProblemError
from decomposition.layers import LinearBlock, linear_blocks
from decomposition.losses import Loss, as_loss
from decomposition.model_checks import (
    ROWS,
    check_model,
    check_parameters,
    double_copy,
    finite_outputs,
)
from decomposition.recipe import Recipe

PARTS = ("inputs", "targets")


@dataclass(frozen=True, eq=False)
class Problem:
    """A model with its loss, data and training recipe; everything downstream starts here.

    Row i of ``train`` is example i everywhere: in training, curvature, masks and scores.
    ``build_chain`` and ``influence_scores`` work at the model's present parameters and never
    train. ``run`` and ``trained()`` train a copy with the recipe unless ``initial`` says that
    this has been done.

    Raises:
        ProblemError: empty, mismatched, non-finite or overlapping data, labels out of range,
            non-finite parameters or outputs.
        UnsupportedModelError: the model has parameters outside once-used linear layers, couples
            examples or is random.
    """

    model: nn.Module
    """The model; its parameters and buffers are never changed here."""
    loss: Loss | nn.Module
    """torch.nn.CrossEntropyLoss(), torch.nn.MSELoss(), or a decomposition.losses.Loss."""
    train: tuple[Tensor, Tensor]
    """(X, y): inputs (N, …) and targets (N,) or (N, C)."""
    query: tuple[Tensor, Tensor]
    """(Xq, yq): the examples whose loss is attributed to training examples."""
    recipe: Recipe = field(default_factory=Recipe)
    """Training recipe of the base model and of every retrained model."""
    name: str = "problem"
    """Name shown in results and reports."""
    initial: Mapping[str, Tensor] | None = None
    """Parameters that training started from. None: the model's present parameters are the
    initialisation and ``run`` trains first. Given: the model is the trained one."""
    allow_query_in_train: bool = False
    """Accept queries that are training examples (self-influence)."""
    display: Mapping[str, object] = field(default_factory=dict)
    """How to show an example in a report, e.g. {"image_shape": (8, 8)}; optional."""

    def __post_init__(self) -> None:
        """Normalise the tensors and check everything once."""
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("loss", as_loss(self.loss))
        put("train", _pair(self.train, "train"))
        put("query", _pair(self.query, "query"))
        for name, kind in (("model", nn.Module), ("recipe", Recipe)):
            if not isinstance(getattr(self, name), kind):
                got = type(getattr(self, name)).__name__
                raise ProblemError(f"Problem.{name} must be a {kind.__name__}, got {got}")
        blocks = linear_blocks(self.model)  # the structure first: its errors are the clearest
        check_parameters(self.model)
        model = double_copy(self.model)
        for where in ("train", "query"):
            x, y = getattr(self, where)
            put(where, (x, self.loss_function.check(finite_outputs(model, x, where), y, where)))
        few = torch.cat([part[0][:ROWS].double() for part in (self.train, self.query)])
        check_model(model, blocks, few)
        if not self.allow_query_in_train:
            _check_disjoint(self.train[0], self.query[0])

    @property
    def loss_function(self) -> Loss:
        """The loss as a decomposition.losses.Loss."""
        assert isinstance(self.loss, Loss)
        return self.loss

    @property
    def blocks(self) -> tuple[LinearBlock, ...]:
        """The model's linear layers in parameter order."""
        return linear_blocks(self.model)

    @property
    def parameters(self) -> int:
        """P, the number of parameters."""
        return sum(block.size for block in self.blocks)

    @property
    def examples(self) -> int:
        """N, the number of training examples."""
        return len(self.train[0])

    @property
    def queries(self) -> int:
        """Number of queries."""
        return len(self.query[0])

    def theta(self) -> Tensor:
        """The model's present parameters as one float64 vector (P,)."""
        return parameters_to_vector(self.model.parameters()).detach().double()

    def trained(self, progress: bool = False) -> Problem:
        """This problem with a copy of the model trained by the recipe, ``initial`` filled in.

        Returns itself if it has been trained already.
        """
        if self.initial is not None:
            return self
        from decomposition.retraining.base import train_base_model

        initial = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        model = train_base_model(self, progress=progress)
        return replace(self, model=model, initial=initial)

    def double_model(self) -> nn.Module:
        """A float64 copy of the model in evaluation mode: what curvature is computed on."""
        return double_copy(self.model)


def _pair(pair: object, where: str) -> tuple[Tensor, Tensor]:
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise ProblemError(f"{where} must be a pair (inputs, targets), got {type(pair).__name__}")
    x, y = (_tensor(part, f"{where} {what}") for part, what in zip(pair, PARTS, strict=True))
    if x.ndim < 2:
        raise ProblemError(f"{where} inputs must be (N, features), got shape {tuple(x.shape)}")
    if x.numel() == 0:
        raise ProblemError(f"{where} is empty: its inputs have shape {tuple(x.shape)}")
    if y.ndim == 0 or len(x) != len(y):
        raise ProblemError(
            f"{where} has {len(x)} inputs but {len(y) if y.ndim else 'a single number as'} targets"
        )
    if not x.is_floating_point():
        raise ProblemError(
            f"{where} inputs must be floating point, got {x.dtype}: convert them with x.float()"
        )
    bad = torch.nonzero(~torch.isfinite(x.flatten(1)))
    if len(bad):
        row, feature = bad[0].tolist()
        value = x.flatten(1)[row, feature].item()
        raise ProblemError(
            f"{where} input at row {row}, feature {feature} is {value}: drop or impute it"
        )
    return x, y


def _tensor(part: object, what: str) -> Tensor:
    """A detached tensor; arrays are copied, half precision becomes float32 without loss."""
    if isinstance(part, np.ndarray):
        try:
            part = torch.from_numpy(part.astype(part.dtype.newbyteorder("="), copy=True))
        except TypeError as error:
            raise ProblemError(f"{what} cannot be a tensor: {error}") from error
    if not isinstance(part, Tensor):
        raise ProblemError(f"{what} must be a tensor or a NumPy array, got {type(part).__name__}")
    part = part.detach()
    return part.float() if part.dtype in (torch.float16, torch.bfloat16) else part


def _check_disjoint(train: Tensor, query: Tensor) -> None:
    """By value: −0 equals 0, and a query is compared in the precision of the training data."""
    train_rows, query_rows = (
        part.to(train.dtype).add(0.0).cpu().contiguous().numpy() for part in (train, query)
    )
    rows = {row.tobytes(): i for i, row in enumerate(train_rows)}
    for q, row in enumerate(query_rows):
        if row.tobytes() in rows:
            raise ProblemError(
                f"query {q} is training example {rows[row.tobytes()]}: its own removal would "
                "dominate its score; split the data, or pass allow_query_in_train=True"
            )
