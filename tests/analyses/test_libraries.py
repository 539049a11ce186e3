"""Other libraries against ours: the same numbers where definitions are the same."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from decomposition import EKFAC, KFAC, Problem, influence_scores
from decomposition.chain.rungs import sampled_kfac
from decomposition.curvature import Empirical, ScaledIdentity
from decomposition.scores.lds import lds, predicted_effects

sys.path.insert(0, str(Path(__file__).parents[2] / "analyses"))

N, Q, DAMPING = 40, 6, 0.02
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*GradScaler.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.script_method.*:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def problem() -> Problem:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(N + Q, 5, generator=draw)
    y = torch.randint(0, 3, (N + Q,), generator=draw)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    return Problem(model, nn.CrossEntropyLoss(), (x[:N], y[:N]), (x[N:], y[N:]))


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder for what kronfluence writes."""
    pytest.importorskip("kronfluence")
    monkeypatch.chdir(tmp_path)


def test_identity_of_kronfluence_is_ours(problem: Problem, scratch: None) -> None:
    from adapters import kronfluence

    found = kronfluence.scorer(problem, 0, "identity")(1e-8) / N
    expected = influence_scores(problem, ScaledIdentity(problem.num_parameters, 0.0), 1.0)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-4


def test_kfac_of_kronfluence_is_ours_within_the_error_of_its_samples(
    problem: Problem, scratch: None
) -> None:
    from adapters import kronfluence

    exact = influence_scores(problem, KFAC()(problem), DAMPING)
    ours = [
        relative(influence_scores(problem, sampled_kfac(50, seed)(problem), DAMPING), exact)
        for seed in range(20)
    ]
    found = kronfluence.scorer(problem, 0, "kfac", repeats=50)(DAMPING).double() / N
    assert max(ours) < 0.1
    assert relative(found, exact) < max(ours)


def test_dattri_and_we_measure_the_same_lds() -> None:
    metric = pytest.importorskip("dattri.metric")
    draw = np.random.default_rng(0)
    masks = np.argsort(draw.random((30, N)), axis=1) < N // 2
    scores, truth = draw.normal(size=(Q, N)), draw.normal(size=(30, Q))
    kept = torch.from_numpy(np.stack([np.flatnonzero(mask) for mask in masks]))
    found, _ = metric.lds(torch.from_numpy(-scores.T), (torch.from_numpy(truth), kept))
    np.testing.assert_allclose(found, lds(predicted_effects(masks, scores), truth).per_query)


def test_ekfac_of_dattri_is_one_with_its_eigenvectors_in_columns(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the empirical Fisher, without biases: why its scores on the bench are not EK-FAC's."""
    fisher = pytest.importorskip("dattri.func.fisher")
    from adapters import dattri

    with torch.random.fork_rng(devices=[]):
        model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False))
    without = replace(problem, model=model)
    exact = influence_scores(without, EKFAC(Empirical())(without), DAMPING)
    (method,) = (m for m in dattri.methods() if m.name == "EK-FAC")
    as_it_is = method.build(without, 0)(DAMPING).double() / N
    rows = fisher.estimate_eigenvector

    def columns(factors: object) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        return {name: (a.T, s.T) for name, (a, s) in rows(factors).items()}

    monkeypatch.setattr(fisher, "estimate_eigenvector", columns)
    turned = method.build(without, 0)(DAMPING).double() / N
    assert relative(turned, exact) < 1e-4
    assert relative(as_it_is, exact) > 0.02
