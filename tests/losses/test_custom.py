"""A loss of one's own: closed forms as oracles, and every way in which a function can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from decomposition import Problem, Recipe, build_chain, run
from decomposition.curvature.products import ggn_product, hessian_product
from decomposition.errors import ProblemError
from decomposition.losses import BinaryCrossEntropy, CrossEntropy, CustomLoss
from decomposition.problems.networks import mlp
from decomposition.settings import Settings

TINY = Settings(masks=20, second_order_masks=4, matrix_norms=False, lattice=False, resamples=100)
GENERATOR = torch.Generator().manual_seed(0)
F = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)
Y = torch.randn(6, 3, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.arange(6) % 3


def log_cosh(f: Tensor, y: Tensor) -> Tensor:
    """Convex: Λ = diag(1 / cosh²(f − y))."""
    return (f - y).cosh().log().sum(-1)


def quartic(f: Tensor, y: Tensor) -> Tensor:
    """Not convex: Λ = diag(3 r² − 1) + 11ᵀ with r = f − y."""
    r = f - y
    return (r**4 / 4 - r**2 / 2).sum(-1) + f.sum(-1).square() / 2


def test_hessian_is_the_closed_form() -> None:
    loss = CustomLoss(log_cosh)
    expected = torch.diag_embed((F - Y).cosh() ** -2)
    torch.testing.assert_close(loss.hessian(F, Y), expected, rtol=1e-12, atol=1e-15)
    root = loss.hessian_sqrt(F, Y)
    torch.testing.assert_close(root @ root.mT, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("function", "ours", "y"),
    [
        (
            lambda f, y: f.logsumexp(-1) - f.gather(-1, y[:, None])[:, 0],
            CrossEntropy(),
            LABELS,
        ),
        (
            lambda f, y: (nn.functional.softplus(f) - y * f).mean(-1),
            BinaryCrossEntropy(),
            Y.sigmoid(),
        ),
    ],
)
def test_a_built_in_loss_as_a_function_is_that_loss(
    function: Callable[[Tensor, Tensor], Tensor], ours: CrossEntropy, y: Tensor
) -> None:
    """Label losses have a zero eigenvalue, which rounding may turn negative: no error."""
    loss, f = CustomLoss(function), 5 * F
    torch.testing.assert_close(loss.check(f, y, "train"), y)
    torch.testing.assert_close(loss.per_example(f, y), ours.per_example(f, y))
    torch.testing.assert_close(loss.hessian(f, y), ours.hessian(f, y), rtol=0, atol=1e-14)
    root = loss.hessian_sqrt(f, y)
    torch.testing.assert_close(root @ root.mT, ours.hessian(f, y), rtol=0, atol=1e-14)


SIGNS = torch.where(Y > 0, 1.0, -1.0)
COUNTS = Y.abs().round()
P = Y.softmax(-1)
PER_OUTPUT: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    "poisson": (partial(functional.poisson_nll_loss, reduction="none", full=True), COUNTS),
    "smooth_l1": (partial(functional.smooth_l1_loss, reduction="none", beta=0.5), Y),
    "huber": (partial(functional.huber_loss, reduction="none"), Y),
    "l1": (partial(functional.l1_loss, reduction="none"), Y),
    "hinge": (partial(functional.hinge_embedding_loss, reduction="none"), SIGNS),
    "soft_margin": (partial(functional.soft_margin_loss, reduction="none"), SIGNS),
    "kl_div": (lambda f, y: functional.kl_div(f.log_softmax(-1), y, reduction="none"), P),
    "bce": (lambda f, y: functional.binary_cross_entropy(f.sigmoid(), y, reduction="none"), P),
}
TORCHS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    **{
        name: (lambda f, y, one=one: one(f, y).sum(-1), targets)
        for name, (one, targets) in PER_OUTPUT.items()
    },
    "gaussian_nll": (
        lambda f, y: functional.gaussian_nll_loss(
            f[:, 0], y[:, 0], functional.softplus(f[:, 1]), reduction="none"
        ),
        Y,
    ),
    "cosine": (
        lambda f, y: functional.cosine_embedding_loss(f, y, torch.ones(len(f)), reduction="none"),
        Y,
    ),
    "triplet": (lambda f, y: functional.triplet_margin_loss(f, y, 1 - y, reduction="none"), Y),
    "distribution": (
        lambda f, y: -torch.distributions.Normal(f[:, 0], f[:, 1].exp()).log_prob(y[:, 0]),
        Y,
    ),
}


@pytest.mark.parametrize(("function", "y"), TORCHS.values(), ids=TORCHS)
def test_torchs_own_losses_may_check_their_values(
    function: Callable[[Tensor, Tensor], Tensor], y: Tensor
) -> None:
    """A branch on values, such as that of a negative variance, is none that vmap would follow."""
    loss = CustomLoss(function, convexify=True)
    loss.check(F, y, "train")
    for row in range(len(F)):
        one = torch.autograd.functional.hessian(
            lambda f, row=row: function(f[None], y[row : row + 1])[0], F[row]
        )
        values, vectors = torch.linalg.eigh(one)  # pyright: ignore[reportArgumentType]
        expected = vectors @ torch.diag(values.clamp(min=0)) @ vectors.T
        torch.testing.assert_close(loss.hessian(F, y)[row], expected, rtol=1e-9, atol=1e-12)


def test_a_network_of_mean_and_variance_is_studied_to_the_end() -> None:
    def negative_log_likelihood(f: Tensor, y: Tensor) -> Tensor:
        variance = functional.softplus(f[:, 1])
        return functional.gaussian_nll_loss(f[:, 0], y, variance, reduction="none")

    x = torch.randn(27, 2, generator=GENERATOR)
    y = x.sum(-1)
    problem = Problem(
        mlp((2, 3, 2), nn.Tanh, 0),
        CustomLoss(negative_log_likelihood, "nll", convexify=True),
        (x[:24], y[:24]),
        (x[24:], y[24:]),
        Recipe(epochs=2),
    )
    tree = run(problem, settings=TINY, progress=False)
    assert np.isfinite(tree["attribution"].to_dataset()["lds_mean"].values).all()
    v = torch.ones(problem.num_parameters, 1, dtype=torch.float64)
    for product, rung in ((hessian_product, "hessian"), (ggn_product, "ggn")):
        exact = build_chain(problem)[rung].dense() @ v
        torch.testing.assert_close(product(problem)(v), exact, rtol=1e-9, atol=1e-12)


def test_certain_examples_alone_are_not_taken_for_non_convex() -> None:
    loss = CustomLoss(lambda f, y: f.logsumexp(-1) - f.gather(-1, y[:, None])[:, 0])
    for row in torch.linspace(10.0, 60.0, 11, dtype=torch.float64):
        f = row * torch.tensor([[1.0, 0.0, -0.5]], dtype=torch.float64)
        loss.hessian_sqrt(f, LABELS[:1])


def test_a_loss_that_is_not_convex_is_refused_by_row_and_eigenvalue() -> None:
    f, y = F.clone(), F - 2.0
    f[4] = y[4]  # Λ = 11ᵀ − I there
    message = r"loss quartic is not convex .* at train row 4: .* eigenvalue -1;.*convexify=True"
    with pytest.raises(ProblemError, match=message):
        CustomLoss(quartic, "quartic").check(f, y, "train")
    with pytest.raises(ProblemError, match="row 4 of a batch"):
        CustomLoss(quartic).hessian_sqrt(f, y)


def test_convexify_keeps_the_positive_part_and_says_so() -> None:
    loss = CustomLoss(quartic, "quartic", convexify=True)
    loss.check(F, F, "train")
    expected = torch.ones(3, 3, dtype=torch.float64) * 2 / 3  # eigenvalues 3 − 1, −1, −1
    torch.testing.assert_close(loss.hessian(F, F), expected.expand(6, 3, 3))
    root = loss.hessian_sqrt(F, F)
    torch.testing.assert_close(root @ root.mT, expected.expand(6, 3, 3))
    assert "positive semi-definite part" in loss.notes[0]
    assert CustomLoss(quartic).notes == ()


BAD: dict[str, tuple[Callable[[Tensor, Tensor], object], str]] = {
    "mean": (lambda f, y: log_cosh(f, y).mean(), r"shape \(6,\), got \(\)"),
    "outputs kept": (lambda f, y: (f - y) ** 2, r"shape \(6,\), got \(6, 3\)"),
    "number": (lambda f, y: 1.0, r"shape \(6,\), got float"),
    "whole numbers": (lambda f, y: (f > y).sum(-1), "must return floats, got torch.int64"),
    "not finite": (lambda f, y: f[:, 0].log(), "is nan at train row"),
    "detached": (lambda f, y: log_cosh(f.detach(), y), "does not depend on the outputs"),
    "coupled": (lambda f, y: log_cosh(f - f.mean(0), y), r"row 0 is .* alone and .* among"),
    "kink": (lambda f, y: (f - f.detach()).square().sum(-1).sqrt(), "derivatives .* not finite"),
    "branch": (
        lambda f, y: log_cosh(f, y) if bool(f[0, 0] > 0) else f[:, 0],
        r"row \d is .* alone and .* among",
    ),
    "no second derivative": (
        lambda f, y: nn.functional.multi_margin_loss(f, y[:, 0].long() % 3, reduction="none"),
        "multi_margin_loss_backward is not implemented; .* write it out in elementary",
    ),
    "wrong shape": (lambda f, y: f @ y, "RuntimeError: mat1 and mat2"),
}


@pytest.mark.parametrize(("function", "message"), BAD.values(), ids=BAD)
def test_a_wrong_function_is_named(
    function: Callable[[Tensor, Tensor], Tensor], message: str
) -> None:
    with pytest.raises(ProblemError, match=message):
        CustomLoss(function).check(F, Y, "train")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mse",), "needs a function of outputs and targets, got 'mse'"),
        ((nn.MSELoss,), "needs a function .*MSELoss"),
        ((log_cosh, ""), "needs a name, got ''"),
    ],
)
def test_wrong_arguments_are_named(arguments: tuple, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        CustomLoss(*arguments)


def test_the_users_own_check_gives_the_targets() -> None:
    def wide(f: Tensor, y: Tensor, where: str) -> Tensor:
        if y.ndim != 1:
            raise ProblemError(f"{where} targets must be ages")
        return y[:, None].expand(f.shape).double()

    loss = CustomLoss(log_cosh, check=wide)
    assert loss.check(F, LABELS, "train").shape == F.shape
    with pytest.raises(ProblemError, match="query targets must be ages"):
        loss.check(F, Y, "query")
    with pytest.raises(ProblemError, match="must return the train targets"):
        CustomLoss(log_cosh, check=lambda f, y, where: None).check(F, Y, "train")  # type: ignore[arg-type, return-value]


def test_a_problem_takes_a_function() -> None:
    x = torch.randn(9, 4, generator=GENERATOR, dtype=torch.float64)
    y = torch.randn(9, 3, generator=GENERATOR, dtype=torch.float64)
    model = mlp((4, 3), nn.Tanh, 0).double()
    problem = Problem(model, CustomLoss(log_cosh, "log-cosh"), (x[:6], y[:6]), (x[6:], y[6:]))
    assert problem.loss_function.name == "log-cosh"
