"""Every way out that an error names is walked, to the end of a run.

A row provokes an error by what a user may do, holds words that the message must contain, and does
what the message says. Add a row for every new message that names a way out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition import Problem, Recipe, Settings, run
from decomposition.errors import DecompositionError
from decomposition.losses import CustomLoss
from decomposition.retraining import BankPlan, retrain_bank

SETTINGS = Settings(
    masks=20,
    second_order_masks=4,
    leave_one_out_examples=8,
    matrix_norms=False,
    lattice=False,
    damping_points=3,
    resamples=100,
)
N, Q = 24, 4


def network(last: int = 2, *between: nn.Module) -> nn.Sequential:
    """P = 26 with two outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first = nn.Linear(3, 4)
        return nn.Sequential(first, *between, nn.Tanh(), nn.Linear(4, last))


def data(examples: int = N + Q) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(examples, 3, generator=generator)
    return x, (x[:, 0] + 0.5 * torch.randn(examples, generator=generator) > 0).long()


X, Y = data()


def problem(**changes: object) -> Problem:
    """A classification of 24 examples; ``changes`` are fields of Problem."""
    given: dict[str, object] = {
        "model": network(),
        "loss": nn.CrossEntropyLoss(),
        "train": (X[Q:], Y[Q:]),
        "query": (X[:Q], Y[:Q]),
        "recipe": Recipe(epochs=1, batch_size=8),
    }
    return Problem(**(given | changes))  # type: ignore[arg-type]


def targets(change: Callable[[Tensor], Tensor]) -> dict[str, object]:
    return {"train": (X[Q:], change(Y[Q:])), "query": (X[:Q], change(Y[:Q]))}


def inputs(change: Callable[[Tensor], Tensor]) -> dict[str, object]:
    return {"train": (change(X[Q:]), Y[Q:]), "query": (change(X[:Q]), Y[:Q])}


def recipe(**changes: object) -> dict[str, object]:
    return {"recipe": replace(Recipe(epochs=1, batch_size=8), **changes)}  # type: ignore[arg-type]


@dataclass(frozen=True)
class Case:
    """An error, and what its message says to do."""

    words: str
    """Regular expression that the message must match."""
    wrong: Callable[[], dict[str, object]]
    """Fields of Problem that provoke it, when they are made, given, or run."""
    right: Callable[[], dict[str, object]]
    """The fields after the advice."""
    settings: dict[str, object] = field(default_factory=dict)
    """Changes of SETTINGS that provoke it."""
    then: dict[str, object] = field(default_factory=dict)
    """Changes of SETTINGS after the advice."""


def none() -> dict[str, object]:
    return {}


def outlier() -> dict[str, object]:
    x = X.clone()
    x[7, 1] = torch.nan
    return {"train": (x[Q:], Y[Q:])}


def imputed() -> dict[str, object]:
    x = outlier()["train"][0]  # type: ignore[index]
    return {"train": (torch.nan_to_num(x), Y[Q:])}


class NoReset(nn.Module):
    """A scale of its own without ``reset_parameters``."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Reset(NoReset):
    """The same with it."""

    def reset_parameters(self) -> None:
        nn.init.ones_(self.scale)


class Unused(nn.Module):
    """A parameter without effect."""

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.inner, self.idle = network(), nn.Parameter(torch.ones(3), requires_grad=not frozen)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


def not_convex(f: Tensor, y: Tensor) -> Tensor:
    return 1.0 - torch.exp(-((f[:, 0] - y) ** 2))


MSE_NUMBERS = {"model": network(1), "loss": nn.MSELoss()}
CASES = {
    # data
    "huge inputs": Case(
        "it is beyond float32, in which inputs are kept; scale the feature",
        lambda: inputs(lambda x: 1e100 * x.double()),
        lambda: inputs(lambda x: x.double()),
    ),
    "nan in inputs": Case("row 3, feature 1 is nan: drop or impute it", outlier, imputed),
    "query in train": Case(
        "query 0 is training example 0: .*allow_query_in_train=True",
        lambda: {"query": (X[Q : 2 * Q], Y[Q : 2 * Q])},
        lambda: {"query": (X[Q : 2 * Q], Y[Q : 2 * Q]), "allow_query_in_train": True},
    ),
    "flat targets of the squared error": Case(
        r"use y\[:, None\]",
        lambda: MSE_NUMBERS | targets(Tensor.float),
        lambda: MSE_NUMBERS | targets(lambda y: y.float()[:, None]),
    ),
    "complex inputs": Case(
        "give real and imaginary parts",
        lambda: inputs(lambda x: torch.complex(x, x)),
        lambda: inputs(lambda x: torch.view_as_real(torch.complex(x, x)).flatten(1)[:, :3]),
    ),
    # losses
    "reduction": Case(
        "use reduction='mean'",
        lambda: {"loss": nn.CrossEntropyLoss(reduction="sum")},
        lambda: {"loss": nn.CrossEntropyLoss(reduction="mean")},
    ),
    "loss class": Case(
        r"pass an instance, CrossEntropyLoss\(\)",
        lambda: {"loss": nn.CrossEntropyLoss},
        lambda: {"loss": nn.CrossEntropyLoss()},
    ),
    "loss function": Case(
        r"wrap it in decomposition.losses.CustomLoss\(function\)",
        lambda: {"loss": lambda f, y: ((f - y[:, None]) ** 2).sum(1)},
        lambda: {"loss": CustomLoss(lambda f, y: ((f - y[:, None]) ** 2).sum(1))},
    ),
    "one output": Case(
        "use one output for every class .* or torch.nn.BCEWithLogitsLoss",
        lambda: {"model": network(1)} | targets(torch.zeros_like),
        lambda: (
            {"model": network(1), "loss": nn.BCEWithLogitsLoss()}
            | targets(lambda y: y.float()[:, None])
        ),
    ),
    "loss that is not convex": Case(
        r"CustomLoss\(\.\.\., convexify=True\)",
        lambda: {"model": network(1), "loss": CustomLoss(not_convex)} | targets(Tensor.float),
        lambda: (
            {"model": network(1), "loss": CustomLoss(not_convex, convexify=True)}
            | targets(Tensor.float)
        ),
    ),
    # models
    "dropout": Case(
        "Dropout.*set p=0",
        lambda: {"model": network(2, nn.Dropout(0.5))},
        lambda: {"model": network(2, nn.Dropout(0.0))},
    ),
    "lazy": Case(
        "is lazy: run one forward pass first",
        lambda: {"model": nn.Sequential(nn.LazyLinear(2))},
        lambda: {"model": _called(nn.Sequential(nn.LazyLinear(2)))},
    ),
    "parameter without effect": Case(
        r"idle has no effect .*requires_grad_\(False\)",
        lambda: {"model": Unused(frozen=False)},
        lambda: {"model": Unused(frozen=True)},
    ),
    "no reset for a fresh start": Case(
        r"no reset_parameters\(\): .*add the method",
        lambda: {"model": network(2, NoReset())},
        lambda: {"model": network(2, Reset())},
        {"randomness": "independent"},
        {"randomness": "independent"},
    ),
    "no reset, shared randomness": Case(
        "or use randomness='shared'",
        lambda: {"model": network(2, NoReset())},
        lambda: {"model": network(2, NoReset())},
        {"randomness": "independent"},
        {"randomness": "shared"},
    ),
    "wrapper": Case(
        "pass the module that it wraps",
        lambda: {"model": nn.DataParallel(network())},
        lambda: {"model": nn.DataParallel(network()).module},
    ),
    "batch statistics": Case(
        "use track_running_stats=True",
        lambda: {"model": network(2, nn.BatchNorm1d(4, track_running_stats=False)).eval()},
        lambda: {"model": network(2, nn.BatchNorm1d(4, track_running_stats=True)).eval()},
    ),
    "nothing to train": Case(
        r"all are frozen \(requires_grad=False\)",
        lambda: {"model": network().requires_grad_(False)},
        lambda: {"model": network().requires_grad_(True)},
    ),
    "labels as numbers": Case(
        "must be integer class labels",
        lambda: targets(Tensor.float),
        lambda: targets(Tensor.long),
    ),
    "label of no class": Case(
        "is outside 0 … 1: the model has 2 outputs",
        lambda: targets(lambda y: y + 1),
        lambda: {"model": network(3)} | targets(lambda y: y + 1),
    ),
    "example weights of a loss": Case(
        "has 3 entries, but the model has 2 outputs: give one number for every output",
        lambda: {"loss": nn.CrossEntropyLoss(weight=torch.ones(3))},
        lambda: {"loss": nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))},
    ),
    # retraining
    "no epoch": Case("Train for an epoch at least", lambda: recipe(epochs=0), none),
    "no epoch, curvature alone": Case(
        r"Settings\(attribution=False\)",
        lambda: recipe(epochs=0),
        lambda: recipe(epochs=0),
        then={"attribution": False},
    ),
    "first checkpoint": Case(
        "Recipe.checkpoint = 0: .*Train for an epoch at least",
        lambda: recipe(checkpoint=0),
        lambda: recipe(checkpoint=1),
    ),
    "a subset without a full batch": Case(
        "the 12 examples .*batch_size = 16; lower batch_size to 12 at most",
        lambda: recipe(batch_size=16, drop_last=True),
        lambda: recipe(batch_size=12, drop_last=True),
    ),
    "a subset without a full batch, enlarged": Case(
        r"subsets: a larger alpha",
        lambda: recipe(batch_size=16, drop_last=True),
        lambda: recipe(batch_size=16, drop_last=True),
        then={"alpha": 0.7},
    ),
    "a base set without a full batch": Case(
        "the 24 examples .*batch_size = 32; .*set drop_last=False",
        lambda: recipe(batch_size=32, drop_last=True),
        lambda: recipe(batch_size=32),
        {"attribution": False},
    ),
    "lr below rounding": Case("raise Recipe.lr", lambda: recipe(lr=1e-12), lambda: recipe(lr=1e-2)),
    "lr below rounding, in float64": Case(
        r"or Recipe\(dtype='float64'\)",
        lambda: recipe(lr=1e-12),
        lambda: recipe(lr=1e-12, dtype="float64"),
    ),
    "alpha that removes none": Case(
        "removes none of the 24 .*one removed", none, none, {"alpha": 0.999}, {"alpha": 23 / 24}
    ),
    "alpha that keeps none": Case(
        "keeps none of the 24 .*has to be kept", none, none, {"alpha": 0.001}, {"alpha": 1 / 24}
    ),
    "too few masks": Case(
        "5 of 5 masks are distinct.*or more masks", none, none, {"masks": 5}, {"masks": 6}
    ),
    "subsets that repeat": Case(
        "5 of 20 masks are distinct.* an alpha nearer to 0.5",
        lambda: {"train": (X[Q : Q + 5], Y[Q : Q + 5])},
        lambda: {"train": (X[Q : Q + 5], Y[Q : Q + 5])},
        {"alpha": 0.2},
        {"alpha": 0.5},
    ),
    "initial that lacks parameters": Case(
        r"Problem.initial lacks .*copy.deepcopy\(model.state_dict\(\)\)",
        lambda: {"initial": {"0.weight": torch.zeros(4, 3)}},
        lambda: {"initial": copy.deepcopy(network().state_dict())},
    ),
    # settings and targets
    "target": Case(
        "must be one of loss, margin", none, none, {"target": "trak"}, {"target": "margin"}
    ),
    "margin without classes": Case(
        "target 'margin' needs classes.*use target 'loss'",
        lambda: MSE_NUMBERS | targets(lambda y: y.float()[:, None]),
        lambda: MSE_NUMBERS | targets(lambda y: y.float()[:, None]),
        {"target": "margin"},
        {"target": "loss"},
    ),
    "dampings in the wrong order": Case(
        "0 < low < high", none, none, {"damping_low": 2.0, "damping_high": 1.0}, {"damping_low": 1}
    ),
    "device": Case("device", none, none, {"device": "tpu"}, {"device": "cpu"}),
}


def _called(model: nn.Module) -> nn.Module:
    model(X)
    return model


def finished(given: Problem, settings: Settings, **options: object) -> None:
    """Run, and look that what was asked for is there."""
    found = run(given, settings=settings, progress=False, **options)  # type: ignore[arg-type]
    assert found["/spectrum"]["eigenvalues"].size
    if settings.attribution:
        level = found["/attribution"]["lds_mean"].sel(ci_bound="estimate", rung="kfac")
        assert np.isfinite(level).any()


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("name", CASES)
def test_the_way_out_leads_to_a_result(name: str) -> None:
    case = CASES[name]
    with pytest.raises(DecompositionError, match=case.words):
        run(
            problem(**case.wrong()),
            settings=replace(SETTINGS, **case.settings),  # type: ignore[arg-type]
            progress=False,
        )
    finished(problem(**case.right()), replace(SETTINGS, **case.then))  # type: ignore[arg-type]


# banks made elsewhere


@pytest.fixture(scope="module")
def trained() -> Problem:
    return problem().trained()


@pytest.fixture(scope="module")
def arrays(trained: Problem) -> dict[str, np.ndarray]:
    bank = retrain_bank(trained, BankPlan(masks=12, second_order_masks=4), progress=False)
    assert bank.outputs is not None
    return {"masks": bank.masks, "outputs": bank.outputs}


@dataclass(frozen=True)
class BankCase:
    """Changes of a good bank that are refused, and settings; and what the message says to do."""

    words: str
    wrong: Callable[[dict[str, np.ndarray], Problem], dict[str, np.ndarray]] = lambda a, _: a
    right: Callable[[dict[str, np.ndarray], Problem], dict[str, np.ndarray]] = lambda a, _: a
    settings: dict[str, object] = field(default_factory=dict)
    then: dict[str, object] = field(default_factory=dict)


def losses(arrays: dict[str, np.ndarray], given: Problem) -> dict[str, np.ndarray]:
    f = torch.from_numpy(arrays["outputs"]).double()
    y = given.query[1].expand(f.shape[:-1]).flatten()
    found = nn.functional.cross_entropy(f.flatten(0, -2), y, reduction="none")
    return {"masks": arrays["masks"], "losses": found.view(f.shape[:-1]).numpy()}


def with_hole(arrays: dict[str, np.ndarray], _: Problem) -> dict[str, np.ndarray]:
    outputs = arrays["outputs"].copy()
    outputs[3, 0, 1, 0] = np.nan
    return arrays | {"outputs": outputs}


BANKS = {
    "hole": BankCase(
        r"outputs is nan at \(3, 0, 1, 0\): leave that mask out",
        with_hole,
        lambda a, p: {k: np.delete(v, 3, axis=0) for k, v in with_hole(a, p).items()},
    ),
    "margin of losses": BankCase(
        "from which no margin follows: give outputs",
        losses,
        settings={"target": "margin"},
        then={"target": "margin"},
    ),
    "margin of losses, by the loss": BankCase(
        "or use target loss", losses, losses, {"target": "margin"}, {"target": "loss"}
    ),
    "one at a time": BankCase(
        "use target loss or margin", settings={"target": "pbrf"}, then={"target": "margin"}
    ),
    "equal masks": BankCase(
        "2 of 12 masks are distinct.*Add models that were trained on other subsets",
        lambda a, _: {k: v[np.arange(12) % 2] for k, v in a.items()},
    ),
    "equal answers": BankCase(
        "is the same for all 12 masks.*write what each model answers",
        lambda a, _: a | {"outputs": np.repeat(a["outputs"][:1], 12, 0)},
    ),
    "empty mask": BankCase(
        "mask 2 keeps no example",
        lambda a, _: a | {"masks": a["masks"] & (np.arange(12) != 2)[:, None]},
        lambda a, _: {k: np.delete(v, 2, axis=0) for k, v in a.items()},
    ),
    "several base models": BankCase("base_seeds = 2", settings={"base_seeds": 2}),
}


@pytest.mark.parametrize("name", BANKS)
def test_the_way_out_of_a_bank_leads_to_a_result(
    name: str, trained: Problem, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    case, path = BANKS[name], tmp_path / "bank.npz"

    def settings(changes: dict[str, object]) -> Settings:
        return replace(SETTINGS, **changes)  # type: ignore[arg-type]

    np.savez(path, **case.wrong(arrays, trained))
    with pytest.raises(DecompositionError, match=case.words):
        run(trained, bank=path, settings=settings(case.settings), progress=False)
    np.savez(path, **case.right(arrays, trained))
    finished(trained, settings(case.then), bank=path)


def test_a_bank_without_epochs_needs_no_retraining(
    trained: Problem, arrays: dict[str, np.ndarray], tmp_path: Path
) -> None:
    """The last way out of a recipe that takes no step."""
    untrained = replace(trained, recipe=replace(trained.recipe, epochs=0), initial=None)
    with pytest.raises(DecompositionError, match="a bank of models retrained elsewhere"):
        run(untrained, settings=SETTINGS, progress=False)
    np.savez(tmp_path / "bank.npz", **arrays)
    finished(untrained, SETTINGS, bank=tmp_path / "bank.npz")


def test_an_untrained_problem_is_trained_by_the_advice() -> None:
    with pytest.raises(DecompositionError, match=r"use problem.trained\(\)"):
        retrain_bank(problem(), progress=False)
    bank = retrain_bank(problem().trained(), BankPlan(masks=6), progress=False)
    finished(problem().trained(), SETTINGS, bank=bank)
