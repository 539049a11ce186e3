"""Spectra at checkpoints along training, from initialisation to convergence."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from torch import nn
from tqdm import tqdm

from decomposition.chain.build import build_chain
from decomposition.curvature import Curvature
from decomposition.errors import DecompositionError, ProblemError
from decomposition.evaluation import mean_loss
from decomposition.problem import Problem
from decomposition.recipe import UnknownStart
from decomposition.retraining.base import train_base_model
from decomposition.spectrum.quadrature import Estimation
from decomposition.spectrum.scopes import spectra_of
from decomposition.spectrum.tables import eigenvalue_table


def training_spectra(
    problem: Problem,
    epochs: Sequence[int] | None = None,
    rungs: Sequence[str] | None = None,
    build: Callable[[Problem], Mapping[str, Curvature]] = build_chain,
    blocks: Sequence[str] | None = None,
    plan: Estimation | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Eigenvalues of every rung at every checkpoint of one training run.

    Args:
        problem: starts from its ``initial`` parameters if it is trained, else from the model's.
        epochs: checkpoints in ascending order, 0 is the initialisation; default 0, 1, 2, 5, 10, …
            up to the recipe's epochs.
        rungs: those to keep; default all that ``build`` makes.
        build: problem → rungs at the model's present parameters.
        blocks: blocks to keep beside the whole; default all.
        plan: the work on a rung that ``build`` gives by its products.
        progress: show a progress bar.

    Returns:
        eigenvalues(epoch, scope, rung, index) ascending, train_loss(epoch), query_loss(epoch).

    Raises:
        DecompositionError: an epoch outside the recipe, or an unknown rung.
    """
    last = problem.recipe.epochs
    chosen = default_epochs(last) if epochs is None else sorted(set(epochs))
    if not chosen or chosen[0] < 0 or chosen[-1] > last:
        raise DecompositionError(
            f"checkpoints are epochs in 0 … {last} (Recipe.epochs), got {list(chosen)}"
        )
    tables, losses = [], []
    models = checkpoints(problem, chosen)
    for epoch in tqdm(chosen, desc="checkpoints", unit="epoch", disable=not progress):
        at = replace(problem, model=models[epoch], initial=models[epoch].state_dict())
        built = build(at)
        unknown = [rung for rung in rungs or () if rung not in built]
        if unknown:
            raise DecompositionError(f"no rung {unknown[0]!r}: there are {', '.join(built)}")
        kept = {name: built[name] for name in rungs or built}
        spectra = spectra_of(built, blocks, list(kept), at, plan)
        tables.append(eigenvalue_table(spectra).drop_vars("method"))
        losses.append([mean_loss(at, split) for split in ("train", "query")])
    size = tables[0]["size"]
    joined = xr.concat([t.drop_vars("size") for t in tables], "epoch", coords="minimal")
    train, query = np.array(losses).T
    return joined.assign(
        size=size, train_loss=("epoch", train), query_loss=("epoch", query)
    ).assign_coords(epoch=chosen)


def default_epochs(last: int) -> list[int]:
    """0, 1, 2, 5, 10, 20, … up to ``last``, and ``last`` itself."""
    series = [m * 10**d for d in range(len(str(max(last, 1)))) for m in (1, 2, 5)]
    return [0, *(e for e in series if e < last), *([last] if last > 0 else [])]


def checkpoints(problem: Problem, epochs: Sequence[int]) -> dict[int, nn.Module]:
    """Epoch → a copy of the model after it, all from one training run (so that a schedule over
    the whole run is followed as it would be).

    Raises:
        ProblemError: it is not known where training started.
    """
    start = copy.deepcopy(problem.model)
    if isinstance(problem.initial, UnknownStart):
        raise ProblemError(
            "checkpoints are those of a training from its start, which Problem(trained=True) does "
            "not tell: give Problem(initial=…), the parameters that it started from"
        )
    if problem.initial is not None:
        start.load_state_dict(dict(problem.initial))
    kept = {0: copy.deepcopy(start)} if 0 in epochs else {}

    def keep(epoch: int, model: nn.Module) -> None:
        if epoch in epochs:
            kept[epoch] = model

    if max(epochs, default=0) > 0:
        train_base_model(replace(problem, model=start, initial=None), checkpoint=keep)
    return kept
