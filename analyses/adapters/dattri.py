"""dattri 0.3.0: its influence functions, TRAK and LoGra, on one checkpoint.

Losses are means over a batch, and batches hold all examples, as its documentation advises for
accuracy. Its `IFAttributorExplicit` forms H by torch.func.hessian, P times the activations of all
examples, and solves for every batch again: it has no place at this size, and is the chain's
`hessian`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from adapters.method import (
    Method,
    Scorer,
    cross_entropy,
    data_of,
    mean_loss,
    model_of,
    relative,
    summed_loss,
)
from decomposition import Problem

Build = Callable[[Any, Any, float | None, int], Any]
"""(dattri.algorithm, loss function → task, damping, seed) → attributor."""


def scorer(problem: Problem, seed: int, make: Build, loss: str = "functional") -> Scorer:
    """An attributor is made for every damping: it keeps what it computes at that damping."""
    from dattri import algorithm
    from dattri.task import AttributionTask

    model, pairs = model_of(problem), [data.tensors for data in data_of(problem)]
    if loss == "module":  # its hooks see one example without its row: give it one of its own
        model, pairs = nn.Sequential(nn.Flatten(), model), [(x[:, None], y) for x, y in pairs]
    train, query = (DataLoader(TensorDataset(*pair), batch_size=len(pair[1])) for pair in pairs)
    functions = {"functional": _functional(model), "margin": _margin(model), "module": _of_module}

    def scores(damping: float | None) -> Tensor:
        torch.manual_seed(seed)
        task = AttributionTask(functions[loss], model, model.state_dict())
        attributor = make(algorithm, task, damping, seed)
        attributor.cache(train)
        whole = (query,) if isinstance(attributor, algorithm.TRAKAttributor) else (train, query)
        # without it LiSSA keeps the graph of all its steps, more than 20 GB; LoGra needs one
        with torch.set_grad_enabled(isinstance(attributor, algorithm.LoGraAttributor)):
            return attributor.attribute(*whole).T

    return scores


def _functional(model: nn.Module) -> Callable[[Any, Any], Tensor]:
    def loss(parameters: Any, data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        return cross_entropy(torch.func.functional_call(model, parameters, x), y)

    return loss


def _of_module(model: nn.Module, data: tuple[Tensor, Tensor], device: str) -> Tensor:
    x, y = data
    return cross_entropy(model(x), y)


def _margin(model: nn.Module) -> Callable[[Any, Any], Tensor]:
    """log p / (1 − p), the output that TRAK attributes, from logits: p = 1 has one, too."""

    def margin(parameters: Any, data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        f = torch.func.functional_call(model, parameters, x)
        of_label = torch.arange(f.shape[-1]) == y.unsqueeze(-1)
        others = f.masked_fill(of_label, -torch.inf).logsumexp(-1)
        return ((f * of_label).sum(-1) - others).mean()

    return margin


def _trak(algorithm: Any, task: Any, damping: float | None, seed: int) -> Any:
    loss = _functional(task.get_model())

    def probability(parameters: Any, data: tuple[Tensor, Tensor]) -> Tensor:
        x, y = data
        return torch.exp(-loss(parameters, (x[None], y[None])))

    # all keys: it updates one dict of defaults, shared by all attributors
    projector = {"proj_dim": 512, "proj_max_batch_size": 32, "proj_seed": seed, "device": "cpu"}
    return algorithm.TRAKAttributor(task, probability, projector, regularization=damping)


def methods() -> list[Method]:
    """Influence functions by CG, LiSSA, Arnoldi, DataInf and EK-FAC; TRAK; LoGra."""

    def method(name: str, make: Build, *defaults: float | None, **more: Any) -> Method:
        loss = more.pop("loss", "functional")
        unit = more.pop("unit", mean_loss)
        return Method("dattri", name, partial(scorer, make=make, loss=loss), defaults, unit, **more)

    return [
        method(
            "CG",
            lambda a, t, d, s: a.IFAttributorCG(t, regularization=d),
            0.0,
            ours="cg:10:hessian",
        ),
        method(
            "LiSSA",
            lambda a, t, d, s: a.IFAttributorLiSSA(t, damping=d),
            0.0,
            slow=True,  # 5,000 steps one after the other
        ),
        method(
            "Arnoldi",
            lambda a, t, d, s: a.IFAttributorArnoldi(t, regularization=d, seed=s),
            0.0,
            samples=True,
        ),
        method(
            "DataInf",
            lambda a, t, d, s: a.IFAttributorDataInf(t, regularization=d),
            0.0,
            None,
            ours="datainf",
        ),
        method("EK-FAC", lambda a, t, d, s: a.IFAttributorEKFAC(t, damping=d), 0.0),
        method("TRAK", _trak, 0.0, loss="margin", unit=summed_loss, samples=True),
        method(
            "LoGra",
            lambda a, t, d, s: a.LoGraAttributor(t, damping=d),
            None,
            loss="module",
            unit=relative,
            slow=True,
        ),
    ]
