"""What is studied: a model, its loss, the training and query data, and how it is trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from decomposition.checks import (
    Rule,
    check_fields,
    checked,
    flag,
    instance,
    optional,
    printable,
    text,
)
from decomposition.device import resolve_device
from decomposition.errors import ProblemError
from decomposition.inputs import Inputs, device_of, each, rows_in, take
from decomposition.layers import Block, Layout
from decomposition.losses import Loss, as_loss
from decomposition.losses.base import check_positions
from decomposition.losses.weighted import Weighted
from decomposition.model_checks import (
    check_model,
    check_modules,
    check_parameters,
    double_copy,
    finite_outputs,
)
from decomposition.problem_data import (
    check_alike,
    check_decay,
    check_disjoint,
    check_following,
    check_places,
    checked_pair,
    checked_weights,
    decay_notes,
    display,
    first_rows,
    output_notes,
    target_notes,
    weight_notes,
)
from decomposition.recipe import Recipe, UnknownStart, UnstatedRecipe
from decomposition.state_dict import check_initial

RULES: dict[str, Rule] = {
    "model": instance(nn.Module),
    "recipe": instance(Recipe),
    "name": text,
    "initial": optional(instance(Mapping)),
    "allow_query_in_train": flag,
    "weight_decay_in_curvature": flag,
    "display": display,
}
"""What each field of a Problem may be, but for its loss and its data."""

Split = Literal["train", "query"]


@dataclass(frozen=True, eq=False, init=False)
class Problem:
    """A model with its loss, data and training recipe; everything downstream starts here.

    Row i of ``train`` is example i everywhere: in training, curvature, masks and scores.
    ``build_chain`` and ``influence_scores`` work at the model's present parameters and never
    train. ``run`` and ``trained()`` need to know what these parameters are:

    - ``recipe`` alone: an initialisation. A copy is trained by the recipe.
    - ``trained=True``: the trained model itself, which is studied as it is. Retraining on subsets
      then takes the ``recipe`` it was trained by, and ``randomness="independent"``, because
      where its training started is not known.
    - ``initial``: the trained model too, with the parameters that its training started from.
    - none of these: they ask. No checkpoint is trained again in silence.

    Raises:
        ProblemError: empty, mismatched, non-finite or overlapping data, labels out of range,
            weights that are none, non-finite parameters or outputs, ``initial`` that is not of
            this model.
        UnsupportedModelError: the model couples examples or is random, a parameter has no effect,
            or a large module has no Kronecker form.
    """

    model: nn.Module
    """The model; its parameters and buffers are never changed here."""
    loss: Loss | nn.Module
    """torch.nn.CrossEntropyLoss, BCEWithLogitsLoss or MSELoss, or a decomposition.losses.Loss
    (CustomLoss for a function of one's own)."""
    train: tuple[Inputs, Tensor]
    """(X, y): inputs (N, …), or a tuple or dict of them for a forward pass with several, and
    targets (N,) or (N, C). For a model that returns (N, C, d1, …), targets as torch's loss takes
    them: labels (N, d1, …) or numbers (N, C, d1, …). Also a map-style torch.utils.data.Dataset of
    such samples (x, y), or of dicts with a target among them, or a DataLoader that does not
    shuffle: they are read once into tensors."""
    query: tuple[Inputs, Tensor]
    """(Xq, yq): the examples whose loss is attributed to training examples."""
    recipe: Recipe
    """Training recipe of the base model and of every retrained model; ``UnstatedRecipe`` where
    none was given."""
    name: str = "problem"
    """Name shown in results and reports; what cannot be printed becomes %XX."""
    initial: Mapping[str, Tensor] | None = None
    """Parameters that training started from: the model is the trained one; ``UnknownStart`` where
    ``trained=True`` said so and no more. None: the model's present parameters are the
    initialisation."""
    allow_query_in_train: bool = False
    """Accept queries that are training examples (self-influence)."""
    display: Mapping[str, object] = field(default_factory=dict)
    """How to show an example in a report, e.g. {"image_shape": (8, 8)}; optional."""
    weights: Tensor | None = None
    """w (N,), finite and not negative: a weight for each training example, whose loss is then
    w_n ℓ_n in everything: the objective (1/N) Σ w_n ℓ_n, which is not divided by Σ w_n; training
    (a batch's mean of w_n ℓ_n), gradients (g_n = w_n ∇ℓ_n) and curvature (w_n Λ_n; of Kronecker
    factors S carries the weights, and A is the unweighted mean). Queries have none. None: all 1."""
    weight_decay_in_curvature: bool = False
    """Whether every rung is the curvature of the loss with the L2 penalty of training, C + w I
    with w = Recipe.weight_decay (SGD, Adam). Gradients stay those of the loss. Units of tr G / P,
    eigenvalues and norms then include w. For models whose matrices fit into memory."""
    layout: Layout = field(init=False, repr=False)
    """Blocks and trainable parameters."""
    output_shape: tuple[int, ...] = field(init=False, repr=False)
    """(C,), or (C, d1, …) where the model predicts at T = d1·… positions."""
    output_notes: tuple[str, ...] = field(init=False, repr=False)
    """What the outputs on the training data look like, if not like those that the loss takes."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | nn.Module,
        train: tuple[Inputs, Tensor] | Dataset | DataLoader,
        query: tuple[Inputs, Tensor] | Dataset | DataLoader,
        recipe: Recipe | None = None,
        name: str = "problem",
        initial: Mapping[str, Tensor] | None = None,
        allow_query_in_train: bool = False,
        display: Mapping[str, object] | None = None,
        weights: Tensor | None = None,
        weight_decay_in_curvature: bool = False,
        *,
        trained: bool = False,
    ) -> None:
        """As the fields say, and ``trained``: whether the model is the trained one, as it is."""
        if checked("Problem.trained", trained, flag, ProblemError) and initial is None:
            initial = UnknownStart()
        given = {
            "model": model,
            "loss": loss,
            "train": train,
            "query": query,
            "recipe": UnstatedRecipe() if recipe is None else recipe,
            "name": name,
            "initial": initial,
            "allow_query_in_train": allow_query_in_train,
            "display": {} if display is None else display,
            "weights": weights,
            "weight_decay_in_curvature": weight_decay_in_curvature,
        }
        for field_name, value in given.items():
            object.__setattr__(self, field_name, value)
        self._check()

    def _check(self) -> None:
        """Normalise the tensors and check everything once."""
        put = lambda name, value: object.__setattr__(self, name, value)  # noqa: E731
        put("loss", as_loss(self.loss))
        put("train", checked_pair(self.train, "train"))
        put("query", checked_pair(self.query, "query"))
        put("weights", checked_weights(self.weights, self.train[1]))
        check_fields(self, RULES, ProblemError)
        check_decay(self.recipe, self.weight_decay_in_curvature)
        put("name", printable(self.name))
        check_alike(self.train[0], self.query[0])
        check_places(self.model, self.train, self.query, self.weights)
        check_modules(self.model)  # the structure first: its errors are the clearest
        check_parameters(self.model)
        if self.initial is not None and not isinstance(self.initial, UnknownStart):
            check_initial(self.initial, self.model)
        model = double_copy(self.model)
        shapes = {}
        for where in ("train", "query"):
            x, y = getattr(self, where)
            f = finite_outputs(model, x, where)
            check_positions(self.query_loss, f)
            put(where, (x, self.query_loss.check(f, y, where)))
            check_following(self.model, x, y, self.query_loss)
            shapes[where] = tuple(f.shape[1:])
            if where == "train":
                put("output_notes", output_notes(self.query_loss, f))
        if shapes["train"] != shapes["query"]:
            raise ProblemError(
                f"an example's outputs have the shape {shapes['train']} in training and "
                f"{shapes['query']} in queries: pad both to one number of positions"
            )
        for split in ("train", "query"):
            self.rows(split)
        put("output_shape", shapes["train"])
        put("layout", check_model(model, first_rows(self.train[0], self.query[0])))
        if not self.allow_query_in_train:
            check_disjoint(self.train[0], self.query[0])

    @property
    def curvature_decay(self) -> float:
        """w, what is added to every eigenvalue of the loss's curvature: the weight decay, or 0."""
        return self.recipe.weight_decay if self.weight_decay_in_curvature else 0.0

    @property
    def query_loss(self) -> Loss:
        """ℓ of outputs and targets as they are given: the loss without weights of examples."""
        assert isinstance(self.loss, Loss)
        return self.loss

    @property
    def loss_function(self) -> Loss:
        """The loss of ``rows``: ℓ, or w ℓ where there are weights."""
        if self.weights is None:
            return self.query_loss
        return Weighted(self.query_loss, self.train[1])

    def rows(self, split: Split) -> tuple[Inputs, Tensor]:
        """Inputs, and targets as ``loss_function`` takes them: with weights, 1 for a query."""
        x, y = self.train if split == "train" else self.query
        loss = self.loss_function
        if not isinstance(loss, Weighted) or self.weights is None:
            return x, y
        weights = self.weights if split == "train" else self.weights.new_ones(len(y))
        return x, loss.rows(y, weights)

    def of_examples(self, rows: slice) -> Problem:
        """This problem with some of its training examples, not checked again."""
        (x, y), few = self.train, copy.copy(self)
        object.__setattr__(few, "train", (take(x, rows), y[rows]))
        if self.weights is not None:
            object.__setattr__(few, "weights", self.weights[rows])
        return few

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of the trainable parameters, in parameter order."""
        return self.layout.blocks

    @property
    def trainable(self) -> tuple[str, ...]:
        """Paths of the trainable parameters, in the order of the flat vector."""
        return self.layout.trainable

    @property
    def plain(self) -> bool:
        """Whether the model is made of torch.nn.Linear called once on (examples, features)."""
        return self.layout.plain

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of a result must know: stand-ins, frozen parameters, constants."""
        targets = {"train": self.train[1], "query": self.query[1]}
        about_targets = target_notes(self.query_loss, targets, self.output_shape)
        about_weights = weight_notes(self.weights)
        about_loss = (*self.query_loss.notes, *self.output_notes, *about_targets, *about_weights)
        return (
            *self.layout.notes,
            *about_loss,
            *decay_notes(self.recipe, self.weight_decay_in_curvature),
        )

    @property
    def num_outputs(self) -> int:
        """C, the number of outputs of an example; C·T with T positions."""
        return math.prod(self.output_shape)

    @property
    def num_parameters(self) -> int:
        """P, the number of trainable parameters."""
        return sum(block.size for block in self.blocks)

    @property
    def num_examples(self) -> int:
        """N, the number of training examples."""
        return rows_in(self.train[0])

    @property
    def num_queries(self) -> int:
        """Number of queries."""
        return rows_in(self.query[0])

    def theta(self) -> Tensor:
        """The model's present trainable parameters as one float64 vector (P,)."""
        values = [self.model.get_parameter(name).detach() for name in self.trainable]
        return torch.cat([value.flatten().double() for value in values])

    def trained(self, progress: bool = False) -> Problem:
        """This problem with a copy of the model trained by the recipe, ``initial`` filled in.

        Returns itself if it has been trained already.

        Raises:
            ProblemError: neither ``recipe`` nor ``trained=True`` nor ``initial`` was given, so that
                the model may be an initialisation or a checkpoint.
        """
        if self.initial is not None:
            return self
        from decomposition.retraining.base import train_base_model

        initial = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        model = train_base_model(self, progress=progress)
        return replace(self, model=model, initial=initial)

    @property
    def device(self) -> torch.device:
        """Where its model and its data lie."""
        return device_of(self.train[0])

    def to(self, device: torch.device | str) -> Problem:
        """This problem with model, data and initial parameters there; itself if they are.

        Raises:
            DeviceError: a device of this name is unknown or not available.
        """
        where = resolve_device(device) if isinstance(device, str) else device
        if self.device == where:
            return self
        move = lambda pair: (each(pair[0], lambda x: x.to(where)), pair[1].to(where))  # noqa: E731
        initial = self.initial
        if initial:  # UnknownStart has nothing to move
            initial = {name: value.to(where) for name, value in initial.items()}
        return replace(
            self,
            model=copy.deepcopy(self.model).to(where),
            train=move(self.train),
            query=move(self.query),
            initial=initial,
            weights=None if self.weights is None else self.weights.to(where),
        )

    def double_model(self) -> nn.Module:
        """A float64 copy of the model in evaluation mode: what curvature is computed on."""
        return double_copy(self.model)
