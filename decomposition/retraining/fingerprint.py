"""A hash of everything that determines a retrained model's outputs."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor

from decomposition.inputs import Inputs, apply_with, double, parts_of, wide
from decomposition.problem import Problem
from decomposition.retraining.by_value import by_value
from decomposition.retraining.plan import BankPlan
from decomposition.source import source_hash

MODULES = (
    "activations audit batched cells choice failure initial plan seeds stacked "
    "stacked_function stacked_linear telling_rows trainable updates"
)
LOSSES = (
    "__init__ base binary_cross_entropy cross_entropy custom from_torch mean_squared_error options "
    "weighted"
)
TRAINER = (
    *(f"losses/{name}.py" for name in LOSSES.split()),
    "checks.py",
    "elementary.py",
    "inputs.py",
    "memory.py",
    "recipe.py",
    *(f"retraining/{name}.py" for name in MODULES.split()),
)
"""The code that a retrained model's outputs depend on."""

PROBE_DIGITS = 8


def study_fingerprint(problem: Problem, plan: BankPlan, start: Mapping[str, Tensor]) -> str:
    """Hash of what all chunks of a bank have in common.

    ``start`` holds the parameters that the first cell starts from. The source of the model and
    of the loss cannot be hashed; their values at ``start`` on the queries stand in for it.
    """
    recipe = asdict(problem.recipe) | {"checkpoint": problem.recipe.last_epoch}
    if plan.randomness == "independent":
        del recipe["seed"]  # the base model's order plays no part
    loss = problem.query_loss
    facts = {
        "trainer": source_hash(*TRAINER),
        "versions": {name: _version(name) for name in ("curvature-decomposition", "torch")},
        "recipe": recipe,
        "randomness": plan.randomness,
        "seed": plan.seed if plan.randomness == "independent" else None,
        "model": repr(problem.model),
        "modules": [_kind(module) for module in problem.model.modules()],
        "loss": [_kind(loss), by_value(vars(loss))],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    constants = [(k, p) for k, p in problem.model.named_parameters() if k not in start]
    for name, tensor in (*start.items(), *constants, *problem.model.named_buffers()):
        _add(digest, name, tensor)
    x, y = problem.query
    _add_inputs(digest, "X", problem.train[0])
    _add(digest, "Y", problem.train[1])
    if problem.weights is not None:
        _add(digest, "W", problem.weights)
    _add_inputs(digest, "Q", x)
    for name, tensor in zip(("f", "loss"), _probe(problem, start, x, y), strict=True):
        _add(digest, name, tensor)
    return digest.hexdigest()


def chunk_key(study: str, masks: np.ndarray, start: int, repeat: int) -> str:
    """Name of the chunk that trains ``masks`` (m, N), the first of them mask ``start``."""
    digest = hashlib.sha256(f"{study} {start} {repeat} {masks.shape}".encode())
    digest.update(np.packbits(masks).tobytes())
    return digest.hexdigest()


def _probe(
    problem: Problem, start: Mapping[str, Tensor], x: Inputs, y: Tensor
) -> tuple[Tensor, Tensor]:
    model = copy.deepcopy(problem.model).double().eval()
    with torch.no_grad():
        f = apply_with(model, {k: v.to(y.device).double() for k, v in start.items()}, double(x))
        loss = problem.query_loss.per_example(f, y.double() if y.is_floating_point() else y)
    return _rounded(f), _rounded(loss)


def _rounded(values: Tensor) -> Tensor:
    """Values free of the last bits, which depend on the number of threads."""
    return torch.round(values / (values.abs().max() + 1e-30), decimals=PROBE_DIGITS)


def _add_inputs(digest: hashlib._Hash, name: str, x: Inputs) -> None:
    for part, tensor in parts_of(x).items():
        _add(digest, f"{name} {part}".rstrip(), tensor)


def _add(digest: hashlib._Hash, name: str, tensor: Tensor) -> None:
    array = wide(tensor.detach()).cpu().contiguous().numpy()
    digest.update(f"{name!a} {array.dtype} {array.shape}\n".encode())
    digest.update(array.tobytes())


def _kind(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
