"""What is studied: a model, its loss, the training and query data, and how it is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from decomposition.errors import ProblemError, UnsupportedModelError
from decomposition.layers import LinearBlock, call_order, linear_blocks
from decomposition.losses import Loss, as_loss
from decomposition.recipe import Recipe


@dataclass(frozen=True)
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
        linear_blocks(self.model)  # the model's structure first: its errors are the clearest
        _check_finite_parameters(self.model)
        put("train", (self.train[0], self._check_split(self.train, "train")))
        put("query", (self.query[0], self._check_split(self.query, "query")))
        call_order(self.model, self.train[0][:2].to(self._model_dtype))
        _check_independent_examples(self.model, self.train[0].to(self._model_dtype))
        if not self.allow_query_in_train:
            _check_disjoint(self.train[0], self.query[0])

    @property
    def _model_dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    def _check_split(self, split: tuple[Tensor, Tensor], where: str) -> Tensor:
        x, y = split
        with torch.no_grad():
            try:
                f = self.model(x[:2].to(self._model_dtype))
            except UnsupportedModelError:
                raise
            except Exception as error:
                raise ProblemError(
                    f"the model cannot be applied to {where} inputs of shape {tuple(x.shape)}: "
                    f"{error}"
                ) from error
            if not isinstance(f, Tensor) or f.ndim != 2 or len(f) != len(x[:2]):
                shape = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
                raise ProblemError(f"the model must return outputs of shape (N, C), got {shape}")
            f = self.model(x.to(self._model_dtype))
        if not torch.isfinite(f).all():
            row = int(torch.nonzero(~torch.isfinite(f))[0, 0])
            raise ProblemError(f"the model's output is not finite at {where} row {row}")
        return self.loss_function.check(f, y, where)

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
        return copy.deepcopy(self.model).double().eval()


def _pair(pair: object, where: str) -> tuple[Tensor, Tensor]:
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise ProblemError(f"{where} must be a pair (inputs, targets), got {type(pair).__name__}")
    x, y = (torch.as_tensor(part) if isinstance(part, np.ndarray) else part for part in pair)
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        raise ProblemError(f"{where} inputs and targets must be tensors or NumPy arrays")
    if len(x) == 0:
        raise ProblemError(f"{where} is empty")
    if x.ndim < 2:
        raise ProblemError(f"{where} inputs must be (N, features), got shape {tuple(x.shape)}")
    if len(x) != len(y):
        raise ProblemError(f"{where} has {len(x)} inputs but {len(y)} targets")
    if not x.is_floating_point():
        raise ProblemError(f"{where} inputs must be floating point, got {x.dtype}")
    bad = torch.nonzero(~torch.isfinite(x.flatten(1)))
    if len(bad):
        row, feature = bad[0].tolist()
        value = x.flatten(1)[row, feature].item()
        raise ProblemError(
            f"{where} input at row {row}, feature {feature} is {value}: drop or impute it"
        )
    return x, y


def _check_finite_parameters(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ProblemError(
                f"parameter {name} holds NaN or infinity: training has diverged (lower Recipe.lr) "
                "or the checkpoint is damaged"
            )


def _check_disjoint(train: Tensor, query: Tensor) -> None:
    rows = {row.tobytes(): i for i, row in enumerate(train.detach().cpu().numpy())}
    same_dtype = query.to(train.dtype).detach().cpu().numpy()
    for q, row in enumerate(same_dtype):
        if row.tobytes() in rows:
            raise ProblemError(
                f"query {q} is training example {rows[row.tobytes()]}: its own removal would "
                "dominate its score; split the data, or pass allow_query_in_train=True"
            )


def _check_independent_examples(model: nn.Module, x: Tensor) -> None:
    """Outputs must not depend on the rest of the batch, nor on chance."""
    x = x[: min(4, len(x))]
    model = copy.deepcopy(model).double().eval()
    x = x.double()
    with torch.no_grad():
        together, again = model(x), model(x)
        alone = torch.cat([model(row[None]) for row in x])
    scale = together.abs().max() + 1e-30
    if not torch.allclose(together, again, rtol=0, atol=float(1e-9 * scale)):
        raise UnsupportedModelError(
            "two forward passes on the same inputs differ: the model is random"
        )
    if not torch.allclose(together, alone, rtol=0, atol=float(1e-9 * scale)):
        raise UnsupportedModelError(
            "an example's output changes with the rest of its batch: the mean over examples that "
            "defines the curvature does not exist for this model"
        )
