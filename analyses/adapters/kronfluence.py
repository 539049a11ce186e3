"""kronfluence 1.0.1: identity, diagonal, K-FAC and EK-FAC, from one sampled label an example.

Its default damping is 1e-8; `None` is its rule, 0.1 × the mean eigenvalue of each layer. Its
documentation calls both reasonable. The loss is summed over a batch, as it asks. It writes its
factors and scores into the working folder.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset

from adapters.method import Method, Scorer, cross_entropy, data_of, drawn, mean_loss, model_of
from decomposition import Problem

DEFAULT, RULE = 1e-8, None
BATCH = 512


def scorer(problem: Problem, seed: int, strategy: str, repeats: int = 1) -> Scorer:
    """Factors of ``repeats`` sampled labels an example, and scores from them."""
    from kronfluence.analyzer import Analyzer, prepare_model
    from kronfluence.arguments import FactorArguments, ScoreArguments
    from kronfluence.task import Task

    class Loss(Task):
        def compute_train_loss(
            self, batch: tuple[Tensor, Tensor], model: nn.Module, sample: bool = False
        ) -> Tensor:
            x, y = batch
            f = model(x)
            return cross_entropy(f, drawn(f) if sample else y, "sum")

        def compute_measurement(self, batch: tuple[Tensor, Tensor], model: nn.Module) -> Tensor:
            return self.compute_train_loss(batch, model)

    warnings.filterwarnings("ignore", ".*GradScaler.*", FutureWarning)
    torch.manual_seed(seed)
    task, (train, query) = Loss(), data_of(problem)
    analyzer = Analyzer(
        "analysis",
        prepare_model(model_of(problem), task),
        task,
        cpu=True,
        log_level=logging.ERROR,
        disable_tqdm=True,
        output_dir=tempfile.mkdtemp(dir="."),
    )
    analyzer.fit_all_factors(
        "factors",
        ConcatDataset([train] * repeats),
        per_device_batch_size=BATCH,
        factor_args=FactorArguments(strategy=strategy),
    )

    def scores(damping: float | None) -> Tensor:
        analyzer.compute_pairwise_scores(
            "scores",
            "factors",
            query,
            train,
            per_device_query_batch_size=BATCH,
            per_device_train_batch_size=BATCH,
            score_args=ScoreArguments(damping_factor=damping),
            overwrite_output_dir=True,
        )
        found = analyzer.load_pairwise_scores("scores")
        assert found is not None
        return found["all_modules"]

    return scores


def methods() -> list[Method]:
    """Its four strategies."""
    own = {"identity": False, "diagonal": True, "kfac": True, "ekfac": True}
    return [
        Method(
            "kronfluence",
            name,
            partial(scorer, strategy=name),
            (DEFAULT, RULE) if damped else (DEFAULT,),
            mean_loss if damped else None,
            samples=damped,
            ours=name,
        )
        for name, damped in own.items()
    ]
