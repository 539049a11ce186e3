"""captum 0.9.0: influence functions in the leading eigenvectors of H, by Arnoldi iteration.

Its `hessian_reg` (1e-3) is added to H of the summed loss, within a Krylov space of 200 dimensions
of which 50 eigenvectors are kept. `NaiveInfluenceFunction` forms H column by column, and is the
chain's `hessian`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from adapters.method import Method, Scorer, data_of, model_of, summed_loss
from decomposition import Problem


def scorer(problem: Problem, seed: int) -> Scorer:
    """The Krylov space is made for every damping, which is part of it."""
    from captum.influence._core.arnoldi_influence_function import ArnoldiInfluenceFunction

    model, (train, query) = model_of(problem), data_of(problem)

    def scores(damping: float | None) -> Tensor:
        assert damping is not None
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "model.pt"
            torch.save(model.state_dict(), checkpoint)
            found = ArnoldiInfluenceFunction(
                model,
                train,
                str(checkpoint),
                loss_fn=nn.CrossEntropyLoss(reduction="sum"),
                batch_size=len(train),
                sample_wise_grads_per_batch=True,
                hessian_reg=damping,
                seed=seed,
            )
        return found.influence(next(iter(DataLoader(query, batch_size=len(query)))))

    return scores


def methods() -> list[Method]:
    """Arnoldi."""
    return [Method("captum", "Arnoldi", scorer, (1e-3,), summed_loss, samples=True)]
