"""Data that a model can be studied on: pairs of inputs and targets, checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from decomposition.checks import Unfit, instance, several, whole
from decomposition.errors import ProblemError
from decomposition.foreign_data import from_array, from_dataset, signed, way_out
from decomposition.inputs import (
    Inputs,
    double,
    is_of_transformers,
    not_dense,
    parts_of,
    rows_in,
    shapes,
    take,
    wide,
)
from decomposition.losses import CrossEntropy, Loss
from decomposition.model_checks import ROWS
from decomposition.recipe import Recipe


class QueryInTrainError(ProblemError):
    """A query is a training example."""

    def __init__(self, said: str, way_out: str) -> None:
        """``said`` without the way out, which is another one where the data are a file."""
        super().__init__(f"{said}; {way_out}")
        self.said = said


def display(value: object) -> dict[str, object]:
    """How to show an example, as JSON can say it: a rule, see decomposition.checks.

    Raises:
        Unfit: no mapping, an image_shape that is none, or what JSON cannot say.
    """
    found = dict(instance(Mapping)(value))
    if found.get("image_shape") is not None:
        found["image_shape"] = list(several(whole(1))(found["image_shape"]))
    try:
        json.dumps(found)
    except (TypeError, ValueError) as error:
        raise Unfit(f"hold what JSON can say ({error})", value) from None
    return found


def checked_pair(pair: object, where: str) -> tuple[Inputs, Tensor]:
    """Inputs and targets, of a pair or a data set, as detached tensors, one row an example.

    Raises:
        ProblemError: as ``from_dataset``; not a pair, not tensors, no rows, not as many of each, or
            not finite.
    """
    if isinstance(pair, Dataset | DataLoader):
        pair = from_dataset(pair, where)
    if not (isinstance(pair, tuple | list) and len(pair) == 2):
        raise ProblemError(
            f"{where} must be a pair (inputs, targets), got {type(pair).__name__}{way_out(pair)}"
        )
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


def checked_weights(weights: object, y: Tensor) -> Float[Tensor, " N"] | None:
    """Weights of the training examples with these targets, in float64; None if there are none.

    Raises:
        ProblemError: not one real number for every example, a number that is negative or not
            finite, or nothing but zeros.
    """
    if weights is None:
        return None
    w = _tensor(weights, "weights")
    if w.shape != y.shape[:1]:
        raise ProblemError(
            f"weights must be one number for each of the {len(y)} training examples, shape "
            f"({len(y)},), got {tuple(w.shape)}"
        )
    if w.is_complex():
        raise ProblemError(f"weights are {w.dtype}: a weight is a real number >= 0")
    w = w.double()
    bad = torch.nonzero(~(torch.isfinite(w.float()) & (w >= 0))).flatten()
    if len(bad):
        raise ProblemError(
            f"the weight of training example {int(bad[0])} is {float(w[bad[0]])}: weights are >= 0 "
            "and finite, also in float32; 0 leaves an example out of the objective"
        )
    if not w.any():
        raise ProblemError("every training example has weight 0: nothing is left to study")
    return w


def output_notes(loss: Loss, f: Float[Tensor, "N C *T"]) -> tuple[str, ...]:
    """That outputs look like probabilities where the loss takes logits."""
    if not isinstance(loss, CrossEntropy) or bool((f < 0).any()):
        return ()
    if not torch.allclose(f.sum(1), f.new_ones(()), rtol=0, atol=1e-5):
        return ()
    return (
        "the model's outputs are probabilities (not negative, of sum 1 over the classes), but the "
        "cross-entropy takes logits and applies a softmax of its own: as it stands, the loss is "
        "that of a softmax of probabilities; drop the model's last softmax if that is not meant",
    )


def check_following(model: nn.Module, x: Inputs, y: Tensor, loss: Loss) -> None:
    """Raise ProblemError if a causal language model of transformers is to predict its own tokens.

    Its labels are those that it is given, and shifted in a loss of its own.
    """
    kinds = {type(part) for part in model.modules()}
    generates = any(is_of_transformers(kind, "GenerationMixin") for kind in kinds)
    if not (generates and isinstance(loss, CrossEntropy)):
        return
    for part in parts_of(x).values():
        tokens = part.shape == y.shape and not part.is_floating_point()
        if tokens and bool((part == y)[y != loss.ignore_index].all()):
            raise ProblemError(
                "the targets are the tokens themselves, as transformers takes them, whose own "
                "loss moves them by one place: here outputs are held against the targets of the "
                "same place; give inputs tokens[:, :-1] and targets tokens[:, 1:]"
            )


def check_decay(recipe: Recipe, in_curvature: bool) -> None:
    """Raise ProblemError if a decay that belongs to no loss is asked for in the curvature."""
    if in_curvature and recipe.weight_decay and recipe.optimizer == "adamw":
        raise ProblemError(
            "weight_decay_in_curvature: the decay of adamw acts beside its gradient steps and is "
            "the derivative of no loss, so it has no curvature; use optimizer='adam' or 'sgd', or "
            "leave it out, where the damping λ takes its place"
        )


def decay_notes(recipe: Recipe, in_curvature: bool) -> tuple[str, ...]:
    """What the curvature contains of a weight decay."""
    if not recipe.weight_decay:
        return ()
    if in_curvature:
        return (
            f"every curvature is that of the loss with its L2 penalty: "
            f"Recipe.weight_decay={recipe.weight_decay:g} is added to all eigenvalues, and traces, "
            "norms and the units of the dampings include it",
        )
    return (
        f"Recipe.weight_decay={recipe.weight_decay:g} acts in training alone: every curvature is "
        "that of the loss without it, and the damping λ takes its place",
    )


def weight_notes(weights: Tensor | None) -> tuple[str, ...]:
    """What weights of examples mean for the objective."""
    if weights is None:
        return ()
    zeros = int((weights == 0).sum())
    return (
        f"training examples have weights from {float(weights.min()):g} to "
        f"{float(weights.max()):g}"
        + (f", {zeros} of them 0" if zeros else "")
        + f": the objective is (1/N) Σ w ℓ, not divided by the mean weight "
        f"{float(weights.mean()):.4g}; queries have no weights",
    )


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
    bad = torch.nonzero(~torch.isfinite(rows.float()))
    if len(bad):
        row, feature = bad[0].tolist()
        value = rows[row, feature].item()
        how = "drop or impute it"
        if math.isfinite(value):
            how = "it is beyond float32, in which inputs are kept; scale the feature"
        raise ProblemError(f"{where} input{name} at row {row}, feature {feature} is {value}: {how}")


def first_rows(train: Inputs, query: Inputs) -> Inputs:
    """The first rows of both, in float64, for trying a model."""
    first, second = (parts_of(double(take(x, slice(0, ROWS)))) for x in (train, query))
    joined = {name: torch.cat([part, second[name]]) for name, part in first.items()}
    if isinstance(train, Tensor):
        return joined[""]
    return joined if isinstance(train, Mapping) else tuple(joined.values())


def check_places(model: nn.Module, train: tuple, query: tuple, weights: Tensor | None) -> None:
    """Raise ProblemError unless model and data lie on one device."""
    places = {f"parameter {name}": p.device for name, p in model.named_parameters()}
    for where, (x, y) in (("train", train), ("query", query)):
        places |= {f"{where} inputs {name}".rstrip(): p.device for name, p in parts_of(x).items()}
        places[f"{where} targets"] = y.device
    if weights is not None:
        places["weights"] = weights.device
    first, *rest = places.items()
    for what, device in rest:
        if device != first[1]:
            raise ProblemError(
                f"{first[0]} is on {first[1]}, {what} on {device}: give model and data on one "
                "device; run(…, device=…) moves them all"
            )


def check_alike(train: Inputs, query: Inputs) -> None:
    """Raise ProblemError unless a query has the parts and shapes of a training example."""
    kinds = [{name: p.shape[1:] for name, p in parts_of(x).items()} for x in (train, query)]
    if type(train) is not type(query) or kinds[0] != kinds[1]:
        raise ProblemError(
            f"queries must look like training examples: inputs {shapes(train)} against "
            f"{shapes(query)}"
        )


def _tensor(part: object, what: str) -> Tensor:
    """A detached tensor; arrays are copied, half precision becomes float32 without loss."""
    if isinstance(part, np.ndarray):
        part = from_array(part, what)
    if not isinstance(part, Tensor):
        raise ProblemError(
            f"{what} must be a tensor or a NumPy array, got {type(part).__name__}{way_out(part)}"
        )
    if reason := not_dense(part):
        raise ProblemError(f"{what}: the tensor is {reason}")
    return wide(signed(part.detach(), what))


def target_notes(
    loss: Loss, targets: Mapping[str, Tensor], output_shape: tuple[int, ...]
) -> tuple[str, ...]:
    """What targets and the shape of outputs say to a reader: positions, and ignored labels."""
    positions = math.prod(output_shape[1:])
    notes = []
    if len(output_shape) > 1:
        notes.append(
            f"the model predicts at {positions} positions of an example (outputs {output_shape}), "
            "whose loss is the mean over them"
        )
    if isinstance(loss, CrossEntropy):  # torch's default of −100 is easily met unasked
        counts = {name: int((y == loss.ignore_index).sum()) for name, y in targets.items()}
        said = " and ".join(f"{count} {name}" for name, count in counts.items() if count)
        if said and len(output_shape) > 1:
            total = {name: y.numel() for name, y in targets.items()}
            said = " and ".join(f"{counts[name]} of {total[name]} {name}" for name in total)
            notes.append(
                f"{said} positions have the ignored label {loss.ignore_index}: they count as zeros "
                "in the mean over an example's positions, where torch divides by the number of "
                "the others"
            )
        elif said:
            notes.append(f"{said} examples have the ignored label {loss.ignore_index}")
    return tuple(notes)


def check_disjoint(train: Inputs, query: Inputs) -> None:
    """Raise QueryInTrainError if a query is a training example.

    By value: −0 equals 0, and a query is compared in the precision of the training data.
    """
    train_rows, query_rows = _row_bytes(train, train), _row_bytes(query, train)
    rows = {row: i for i, row in enumerate(train_rows)}
    for q, row in enumerate(query_rows):
        if row in rows:
            raise QueryInTrainError(
                f"query {q} is training example {rows[row]}: its own removal would "
                "dominate its score",
                "split the data, or pass allow_query_in_train=True",
            )


def _row_bytes(x: Inputs, like: Inputs) -> list[bytes]:
    kinds = parts_of(like)
    arrays = [
        part.to(kinds[name].dtype).add(0).cpu().contiguous().numpy()
        for name, part in parts_of(x).items()
    ]
    return [b"".join(array[i].tobytes() for array in arrays) for i in range(rows_in(x))]
