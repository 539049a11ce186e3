"""What is studied: a model, its loss, the training and query data, and how it is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from decomposition.device import resolve_device
from decomposition.errors import ProblemError
from decomposition.inputs import Inputs, device_of, each, parts_of, rows_in, shapes, take
from decomposition.layers import Block, Layout
from decomposition.losses import CrossEntropy, Loss, as_loss
from decomposition.model_checks import (
    ROWS,
    check_model,
    check_modules,
    check_parameters,
    double_copy,
    finite_outputs,
)
from decomposition.recipe import Recipe


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
    targets (N,) or (N, C)."""
    query: tuple[Inputs, Tensor]
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
    layout: Layout = field(init=False, repr=False)
    """Blocks and trainable parameters."""
    outputs: int = field(init=False, repr=False)
    """C, the number of outputs."""

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
        _check_alike(self.train[0], self.query[0])
        _check_places(self.model, self.train, self.query)
        check_modules(self.model)  # the structure first: its errors are the clearest
        check_parameters(self.model)
        model = double_copy(self.model)
        for where in ("train", "query"):
            x, y = getattr(self, where)
            f = finite_outputs(model, x, where)
            put(where, (x, self.loss_function.check(f, y, where)))
            put("outputs", f.shape[1])
        put("layout", check_model(model, _few(self.train[0], self.query[0])))
        if not self.allow_query_in_train:
            _check_disjoint(self.train[0], self.query[0])

    @property
    def loss_function(self) -> Loss:
        """The loss as a decomposition.losses.Loss."""
        assert isinstance(self.loss, Loss)
        return self.loss

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
        return (*self.layout.notes, *self.loss_function.notes, *self._ignored())

    def _ignored(self) -> tuple[str, ...]:
        """How many labels the loss passes over: torch's default of −100 is easily met unasked."""
        loss = self.loss_function
        if not isinstance(loss, CrossEntropy):
            return ()
        counts = {
            name: int((getattr(self, name)[1] == loss.ignore_index).sum())
            for name in ("train", "query")
        }
        said = " and ".join(f"{count} {name}" for name, count in counts.items() if count)
        return (f"{said} examples have the ignored label {loss.ignore_index}",) if said else ()

    @property
    def parameters(self) -> int:
        """P, the number of trainable parameters."""
        return sum(block.size for block in self.blocks)

    @property
    def examples(self) -> int:
        """N, the number of training examples."""
        return rows_in(self.train[0])

    @property
    def queries(self) -> int:
        """Number of queries."""
        return rows_in(self.query[0])

    def theta(self) -> Tensor:
        """The model's present trainable parameters as one float64 vector (P,)."""
        values = [self.model.get_parameter(name).detach() for name in self.trainable]
        return torch.cat([value.flatten().double() for value in values])

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
        if initial is not None:
            initial = {name: value.to(where) for name, value in initial.items()}
        return replace(
            self,
            model=copy.deepcopy(self.model).to(where),
            train=move(self.train),
            query=move(self.query),
            initial=initial,
        )

    def double_model(self) -> nn.Module:
        """A float64 copy of the model in evaluation mode: what curvature is computed on."""
        return double_copy(self.model)


def _pair(pair: object, where: str) -> tuple[Inputs, Tensor]:
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise ProblemError(f"{where} must be a pair (inputs, targets), got {type(pair).__name__}")
    x, y = _inputs(pair[0], f"{where} inputs"), _tensor(pair[1], f"{where} targets")
    for name, part in parts_of(x).items():
        _check_part(part, where, f" {name}" if name else "")
    lengths = {name: len(part) for name, part in parts_of(x).items()}
    if len(set(lengths.values())) > 1:
        raise ProblemError(f"{where} inputs have different numbers of rows: {shapes(x)}")
    if y.ndim == 0 or rows_in(x) != len(y):
        raise ProblemError(
            f"{where} has {rows_in(x)} inputs but {len(y) if y.ndim else 'a single number as'} "
            "targets"
        )
    return x, y


def _inputs(x: object, what: str) -> Inputs:
    if isinstance(x, Mapping):
        if not x or not all(isinstance(name, str) for name in x):
            raise ProblemError(f"{what}: a dict needs names of the forward pass's arguments")
        return {str(name): _tensor(part, f"{what} {name}") for name, part in x.items()}
    if isinstance(x, tuple | list):
        if not x:
            raise ProblemError(f"{what} are an empty {type(x).__name__}")
        return tuple(_tensor(part, f"{what} {i}") for i, part in enumerate(x))
    return _tensor(x, what)


def _check_part(x: Tensor, where: str, name: str) -> None:
    if x.ndim < 2 and (x.ndim == 0 or x.is_floating_point()):
        raise ProblemError(
            f"{where} inputs{name} must be (N, features), got shape {tuple(x.shape)}"
        )
    if x.numel() == 0:
        raise ProblemError(f"{where} is empty: its inputs{name} have shape {tuple(x.shape)}")
    if x.is_complex():
        raise ProblemError(f"{where} inputs{name} are {x.dtype}: give real and imaginary parts")
    if not x.is_floating_point():
        return
    rows = x.reshape(len(x), -1)
    bad = torch.nonzero(~torch.isfinite(rows))
    if len(bad):
        row, feature = bad[0].tolist()
        value = rows[row, feature].item()
        raise ProblemError(
            f"{where} input{name} at row {row}, feature {feature} is {value}: drop or impute it"
        )


def _few(train: Inputs, query: Inputs) -> Inputs:
    """The first rows of both."""
    first, second = (take(x, slice(0, ROWS)) for x in (train, query))
    names = parts_of(second)
    joined = {
        name: torch.cat(
            [
                part.double() if part.is_floating_point() else part,
                names[name].double() if part.is_floating_point() else names[name],
            ]
        )
        for name, part in parts_of(first).items()
    }
    if isinstance(train, Tensor):
        return joined[""]
    return joined if isinstance(train, Mapping) else tuple(joined.values())


def _check_places(model: nn.Module, train: tuple, query: tuple) -> None:
    places = {f"parameter {name}": p.device for name, p in model.named_parameters()}
    for where, (x, y) in (("train", train), ("query", query)):
        places |= {f"{where} inputs {name}".rstrip(): p.device for name, p in parts_of(x).items()}
        places[f"{where} targets"] = y.device
    first, *rest = places.items()
    for what, device in rest:
        if device != first[1]:
            raise ProblemError(
                f"{first[0]} is on {first[1]}, {what} on {device}: give model and data on one "
                "device; run(…, device=…) moves them all"
            )


def _check_alike(train: Inputs, query: Inputs) -> None:
    kinds = [{name: p.shape[1:] for name, p in parts_of(x).items()} for x in (train, query)]
    if type(train) is not type(query) or kinds[0] != kinds[1]:
        raise ProblemError(
            f"queries must look like training examples: inputs {shapes(train)} against "
            f"{shapes(query)}"
        )


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


def _check_disjoint(train: Inputs, query: Inputs) -> None:
    """By value: −0 equals 0, and a query is compared in the precision of the training data."""
    train_rows, query_rows = _row_bytes(train, train), _row_bytes(query, train)
    rows = {row: i for i, row in enumerate(train_rows)}
    for q, row in enumerate(query_rows):
        if row in rows:
            raise ProblemError(
                f"query {q} is training example {rows[row]}: its own removal would "
                "dominate its score; split the data, or pass allow_query_in_train=True"
            )


def _row_bytes(x: Inputs, like: Inputs) -> list[bytes]:
    kinds = parts_of(like)
    arrays = [
        part.to(kinds[name].dtype).add(0).cpu().contiguous().numpy()
        for name, part in parts_of(x).items()
    ]
    return [b"".join(array[i].tobytes() for array in arrays) for i in range(rows_in(x))]
