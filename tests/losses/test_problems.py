"""Problems with every loss: their matrices are those of torch's own loss, summed over N."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition import Problem, Recipe, build_chain
from decomposition.errors import ProblemError
from decomposition.evaluation import mean_loss as mean_loss_on
from decomposition.losses import CrossEntropy, CustomLoss
from decomposition.problems.networks import mlp
from decomposition.scores.gradients import target_gradients
from decomposition.targets.functions import measure
from tests.losses.table import CASES, C, Case

N, QUERIES, D = 12, 5, 3
SOME = (
    "cross_entropy-ignore_255",
    "cross_entropy-weight-ignore_1-smoothed",
    "binary",
    "binary-weight-pos_weight",
)
some_cases = pytest.mark.parametrize("case", [CASES[name] for name in SOME], ids=SOME)


def make(case: Case, widths: tuple[int, ...] = (D, 4, C)) -> Problem:
    """A small network with the case's loss; the first query is ignored if labels can be."""
    x = torch.randn(N + QUERIES, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    _, y = case.example(N)
    _, yq = case.example(QUERIES)
    model = mlp(widths, nn.Tanh, 0).double()
    return Problem(model, case.torchs, (x[:N], y), (x[N:], yq), name="case")


def mean_loss(problem: Problem, case: Case) -> Callable[[dict[str, Tensor]], Tensor]:
    """θ → the sum of torch's unreduced losses by N."""
    model, (x, y) = problem.double_model(), problem.train

    def objective(parameters: dict[str, Tensor]) -> Tensor:
        return case.unreduced(torch.func.functional_call(model, parameters, (x,)), y).sum() / N

    return objective


@some_cases
def test_hessian_of_a_network_is_that_of_torchs_losses(case: Case) -> None:
    problem = make(case)
    parameters = {k: p.detach() for k, p in problem.double_model().named_parameters()}
    blocks = torch.func.hessian(mean_loss(problem, case))(parameters)
    expected = torch.cat(
        [
            torch.cat([blocks[a][b].reshape(parameters[a].numel(), -1) for b in parameters], dim=1)
            for a in parameters
        ]
    )
    torch.testing.assert_close(
        build_chain(problem)["hessian"].dense(), expected, rtol=1e-9, atol=1e-11
    )


@some_cases
def test_linear_models_have_no_linearisation_error(case: Case) -> None:
    chain = build_chain(make(case, (D, C)))
    torch.testing.assert_close(
        chain["ggn"].dense(), chain["hessian"].dense(), rtol=1e-10, atol=1e-13
    )


@some_cases
def test_a_function_of_the_same_values_has_the_same_chain(case: Case) -> None:
    problem = make(case)
    loss = problem.loss_function
    own = CustomLoss(loss.per_example)
    theirs = build_chain(replace(problem, loss=own))
    for name, rung in build_chain(problem).items():
        torch.testing.assert_close(rung.dense(), theirs[name].dense(), rtol=1e-8, atol=1e-11)


def test_margin_of_a_weighted_problem_passes_over_ignored_training_labels() -> None:
    case = CASES["cross_entropy-weight-ignore_255-smoothed"]
    problem = make(case)
    with pytest.raises(ProblemError, match="query 1 has the ignored label 255"):
        target_gradients(problem, "margin")
    x, y = problem.query
    problem = replace(problem, query=(x[y != 255], y[y != 255]))
    plain = replace(problem, loss=CrossEntropy(), train=(problem.train[0], 0 * problem.train[1]))
    found, expected = (target_gradients(p, "margin").query for p in (problem, plain))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    ignored = problem.train[1] == 255
    assert int(ignored.sum()) > 0
    train = target_gradients(problem, "margin").train
    torch.testing.assert_close(train.abs().amax(0) == 0, ignored)


def test_binary_problems_have_no_margin() -> None:
    problem = make(CASES["binary"])
    for attempt in (
        lambda: target_gradients(problem, "margin"),
        lambda: measure(problem, np.zeros((2, QUERIES, C)), "margin"),
    ):
        with pytest.raises(ProblemError, match="needs classes, but the loss is binary_cross"):
            attempt()


def test_ignored_queries_have_the_loss_zero() -> None:
    problem = make(CASES["cross_entropy-ignore_255"])
    f = np.random.default_rng(0).normal(size=(3, QUERIES, C))
    values = measure(problem, f)
    np.testing.assert_array_equal(values == 0.0, (problem.query[1] == 255).expand(3, -1))


def soft() -> tuple[nn.Module, Tensor, Tensor]:
    """A network, inputs, and a probability for every class."""
    generator = torch.Generator().manual_seed(0)
    x, q = (torch.randn(12, C, generator=generator, dtype=torch.float64) for _ in range(2))
    return mlp((C, 4, C), nn.Tanh, 0).double(), x, q.softmax(1)


def test_soft_labels_are_refused_with_a_loss_that_takes_them() -> None:
    model, x, q = soft()
    parts = ((x[:8], q[:8]), (x[8:], q[8:]))
    with pytest.raises(ProblemError, match="probabilities of every class") as refused:
        Problem(model, nn.CrossEntropyLoss(), *parts)
    code = str(refused.value).partition("use decomposition.")[2]
    problem = Problem(model, eval(code, {"CustomLoss": CustomLoss}), *parts)
    unreduced = torch.nn.functional.cross_entropy(model(x).detach(), q, reduction="none")
    assert mean_loss_on(problem, "train") == pytest.approx(float(unreduced[:8].mean()), rel=1e-12)
    assert float(build_chain(problem)["ggn"].trace()) > 0


def test_probabilities_where_logits_belong_are_noted() -> None:
    model, x, q = soft()
    data = ((x[:8], q.argmax(1)[:8]), (x[8:], q.argmax(1)[8:]))
    for last, said in ((nn.Softmax(1), True), (nn.LogSoftmax(1), False), (nn.Identity(), False)):
        problem = Problem(nn.Sequential(model, last), nn.CrossEntropyLoss(), *data)
        assert any("outputs are probabilities" in note for note in problem.notes) is said


def test_weight_decay_is_noted_as_no_part_of_the_curvature() -> None:
    problem = make(CASES["cross_entropy"])
    decayed = replace(problem, recipe=Recipe(weight_decay=0.01))
    (note,) = set(decayed.notes) - set(problem.notes)
    assert "Recipe.weight_decay=0.01 acts in training alone" in note
    assert torch.equal(
        build_chain(decayed)["hessian"].dense(), build_chain(problem)["hessian"].dense()
    )
