"""Models that predict at T positions: the flattened problem, torch's own loss, and what is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition import Problem, build_chain, influence_scores
from decomposition.chain.rungs import EKFAC, KFAC
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.jacobian import per_example_gradients
from decomposition.errors import ProblemError, UnsupportedModelError
from decomposition.losses import CustomLoss
from decomposition.retraining.trainer import BatchedTrainer
from decomposition.targets.functions import measure
from tests.general import CLASSES, GENERAL, QUERIES, N, T, images, normal, tokens
from tests.models import Applied
from tests.retraining.plain import RECIPE

D = 4


def pair(
    loss: nn.Module, y: Tensor, activation: type[nn.Module] = nn.Tanh, last: int = CLASSES
) -> tuple[Problem, Problem]:
    """Shared layers on T independent positions, and the same network on N·T examples.

    ``y`` is (N + QUERIES, T) labels or (N + QUERIES, last, T) numbers.
    """
    x = images(T, D)

    def build() -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(D, 5), activation(), nn.Linear(5, last)).double()

    shared = Applied(lambda m, x: m.layers(x).transpose(1, 2), layers=build())
    flat = y.flatten() if y.ndim == 2 else y.mT.flatten(0, 1)
    rows, cut = x.flatten(0, 1), N * T
    return (
        Problem(shared, loss, (x[:N], y[:N]), (x[N:], y[N:])),
        Problem(build(), loss, (rows[:cut], flat[:cut]), (rows[cut:], flat[cut:])),
    )


def labels(ignored: bool = False) -> Tensor:
    y = tokens(N + QUERIES, T, below=CLASSES)
    if ignored:
        y[::3, 1:] = -100
        y[1, :] = -100
    return y


PAIRS: dict[str, Callable[[], tuple[Problem, Problem]]] = {
    "cross_entropy": lambda: pair(nn.CrossEntropyLoss(), labels()),
    "ignored": lambda: pair(nn.CrossEntropyLoss(), labels(ignored=True)),
    "options": lambda: pair(
        nn.CrossEntropyLoss(weight=torch.tensor([0.5, 2.0, 1.0]), label_smoothing=0.1),
        labels(ignored=True),
    ),
    "mse": lambda: pair(nn.MSELoss(), normal(N + QUERIES, CLASSES, T, seed=4)),
    "binary": lambda: pair(
        nn.BCEWithLogitsLoss(), normal(N + QUERIES, CLASSES, T, seed=4).sigmoid()
    ),
}


@pytest.fixture(scope="module", params=list(PAIRS))
def both(request: pytest.FixtureRequest) -> tuple[Problem, Problem]:
    return PAIRS[request.param]()


def test_the_chain_of_independent_positions_is_that_of_as_many_examples(
    both: tuple[Problem, Problem],
) -> None:
    """H, G, B, EK-FAC and K-FAC expand, with no factor between them: both are means."""
    found, expected = (build_chain(problem) for problem in both)
    for name, rung in expected.items():
        scale = float(rung.dense().abs().max())
        torch.testing.assert_close(found[name].dense(), rung.dense(), rtol=0, atol=1e-11 * scale)


def test_gradients_are_means_over_positions(both: tuple[Problem, Problem]) -> None:
    found, alone = (per_example_gradients(problem, *problem.train) for problem in both)
    expected = alone.unflatten(0, (N, T)).mean(1)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_scores_are_means_over_the_positions_of_a_query_and_of_an_example(
    both: tuple[Problem, Problem],
) -> None:
    """Σ over both positions by T² and N is the mean over a query's of the sum over an example's."""
    found, alone = (
        influence_scores(problem, build_chain(problem)["kfac"], 0.1) for problem in both
    )
    expected = torch.as_tensor(alone).view(QUERIES, T, N, T).mean(1).sum(-1)
    torch.testing.assert_close(torch.as_tensor(found), expected, rtol=1e-9, atol=1e-13)


def test_deep_linear_networks_with_the_squared_error_have_exact_factors() -> None:
    y = normal(N + QUERIES, 2, T, seed=4)
    problem, _ = pair(nn.MSELoss(), y, nn.Identity, last=2)
    chain = build_chain(problem)
    for name in ("ekfac", "kfac"):
        torch.testing.assert_close(
            chain[name].dense(), chain["block_ggn"].dense(), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("ignored", [False, True])
def test_the_hessian_is_that_of_torchs_own_loss_times_the_labelled_share(ignored: bool) -> None:
    """Positions that see each other; torch.func.hessian of nn.CrossEntropyLoss is the judge."""
    problem = GENERAL["tagging"]()
    y = labels(ignored)
    problem = replace(
        problem, train=(problem.train[0], y[:N]), query=(problem.query[0], labels()[N:])
    )
    model, (x, y) = problem.double_model(), problem.train
    sizes = [p.numel() for p in model.parameters()]

    def objective(theta: Tensor) -> Tensor:
        named = zip(model.named_parameters(), theta.split(sizes), strict=True)
        values = {name: piece.view_as(p) for (name, p), piece in named}
        return nn.CrossEntropyLoss()(torch.func.functional_call(model, values, (x,)), y)

    share = float((y != -100).double().mean())
    assert (share < 1) == ignored
    expected = share * torch.func.hessian(objective)(problem.theta())
    found = build_chain(problem)["hessian"].dense()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-11 * float(expected.abs().max()))


def test_the_dual_form_has_a_row_for_every_position_and_class() -> None:
    problem, _ = pair(nn.CrossEntropyLoss(), labels(ignored=True))
    few = replace(problem, train=(problem.train[0][:4], problem.train[1][:4]))
    assert few.num_examples * few.num_outputs == 4 * CLASSES * T < few.num_parameters
    chain = build_chain(few)
    for name, rung in zip(("ggn", "block_ggn"), dual_rungs(few), strict=True):
        torch.testing.assert_close(rung.dense(), chain[name].dense(), rtol=1e-8, atol=1e-11)


def test_training_with_ignored_positions_is_a_loop_with_torchs_losses_and_zeros() -> None:
    """SGD on (1/BT) Σ of torch's unreduced losses, in stacks of two, by a plain loop."""
    problem, _ = pair(nn.CrossEntropyLoss(), labels(ignored=True))
    problem = replace(problem, recipe=replace(RECIPE, epochs=2))
    rows = torch.stack(
        [torch.randperm(N, generator=torch.Generator().manual_seed(i))[:6] for i in range(2)]
    )
    trainer = BatchedTrainer(problem)
    stack = trainer.stack(2)
    start = problem.model.named_parameters()
    stack.load(0, {name: value.detach().expand(2, *value.shape) for name, value in start})
    trainer.train(stack, lambda epoch: rows, lambda epoch: None)
    found = dict(stack.parameters())
    x, y = problem.train
    for k in range(2):
        model = problem.double_model()
        recipe = problem.recipe
        optimizer = torch.optim.SGD(model.parameters(), lr=recipe.lr, momentum=recipe.momentum)
        for _ in range(recipe.epochs):
            for batch in rows[k].split(recipe.batch_size):
                optimizer.zero_grad()
                nn.CrossEntropyLoss(reduction="none")(model(x[batch]), y[batch]).mean().backward()
                optimizer.step()
        for name, value in model.named_parameters():
            torch.testing.assert_close(found[name][k], value.detach(), rtol=0, atol=1e-12)


def test_notes_say_positions_and_ignored_labels() -> None:
    problem, _ = pair(nn.CrossEntropyLoss(), labels(ignored=True))
    *_, about_positions, about_labels = problem.notes
    assert "at 3 positions of an example (outputs (3, 3))" in about_positions
    train, query = ((y == -100).sum() for _, y in (problem.train, problem.query))
    assert f"{train} of {N * T} train and {query} of {QUERIES * T} query" in about_labels
    assert problem.num_outputs == 9
    assert problem.output_shape == (3, 3)


def test_a_margin_is_of_one_position() -> None:
    problem = GENERAL["tagging"]()
    outputs = np.zeros((2, QUERIES, problem.num_outputs))
    with pytest.raises(ProblemError, match="one margin for each of its positions"):
        measure(problem, outputs, "margin")
    np.testing.assert_allclose(measure(problem, outputs), np.log(CLASSES))


def test_a_loss_of_ones_own_takes_rows_and_the_way_there_is_named() -> None:
    problem = GENERAL["tagging"]()
    own = CustomLoss(
        lambda f, y: nn.functional.cross_entropy(
            f.unflatten(1, (CLASSES, T)), y, reduction="none"
        ).mean(-1),
        "mine",
    )
    message = r"mine is one of outputs \(N, C\), .* \(8, 3, 3\): .*outputs.flatten\(1\).*\(3, 3\)\)"
    with pytest.raises(ProblemError, match=message):
        replace(problem, loss=own)
    model = problem.model
    rows = Applied(lambda m, x: m.inner(x).flatten(1), inner=model)
    found = build_chain(replace(problem, model=rows, loss=own))
    for name, rung in build_chain(problem).items():
        torch.testing.assert_close(found[name].dense(), rung.dense(), rtol=1e-8, atol=1e-11)


def test_language_models_with_classes_last_are_told_to_transpose() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    x = tokens(N, 5, below=7)
    y = x.roll(-1, 1)
    with pytest.raises(ProblemError, match=r"return logits.transpose\(1, 2\)"):
        Problem(model, nn.CrossEntropyLoss(), (x[:6], y[:6]), (x[6:], y[6:]))


def test_positions_whose_number_depends_on_the_batch_are_refused() -> None:
    def forward(model: nn.Module, x: Tensor) -> Tensor:
        return model.out(x[:, : int((x != 0).any(-1).sum(1).max())]).transpose(1, 2)

    x = images(T, D)
    x[:6, 2:] = 0.0
    message = "changes with the rest of its batch"
    with pytest.raises(UnsupportedModelError, match=message):
        Problem(
            Applied(forward, out=nn.Linear(D, CLASSES)).double(),
            nn.CrossEntropyLoss(),
            (x[1:8], labels()[1:8]),
            (torch.cat([x[:1], x[8:]]), torch.cat([labels()[:1], labels()[8:]])),
        )


@pytest.mark.parametrize("rung", [KFAC(sharing="reduce"), EKFAC(sharing="reduce")])
def test_reduce_has_a_matrix_of_the_same_size(rung: KFAC | EKFAC) -> None:
    problem = GENERAL["tagging"]()
    assert bool(torch.isfinite(rung(problem).dense()).all())
