"""Bad input gets an error that names the value and the place; a good model is left untouched."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from decomposition import (
    DecompositionError,
    Problem,
    Recipe,
    Settings,
    build_chain,
    influence_scores,
    run,
)
from decomposition.errors import ProblemError, UnsupportedModelError
from decomposition.problems.networks import mlp
from tests.models import Applied

N, QUERIES, D, CLASSES = 12, 4, 3, 3


def inputs(n: int, seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *(shape or (D,)), generator=generator, dtype=torch.float64)


def labels(n: int) -> torch.Tensor:
    return torch.arange(n) % CLASSES


def make(model: nn.Module | None = None, **changes) -> Problem:
    parts = {
        "model": model or mlp((D, 4, CLASSES), nn.Tanh, 0),
        "loss": nn.CrossEntropyLoss(),
        "train": (inputs(N, 1), labels(N)),
        "query": (inputs(QUERIES, 2), labels(QUERIES)),
    }
    return Problem(**(parts | changes))


def spoiled(value: float, row: int = 5, column: int = 2) -> torch.Tensor:
    x = inputs(N, 1)
    x[row, column] = value
    return x


BAD_DATA: dict[str, tuple[dict, str]] = {
    "nan in train": (
        {"train": (spoiled(np.nan), labels(N))},
        r"train input at row 5, feature 2 is",
    ),
    "inf in query": ({"query": (spoiled(np.inf), labels(N))}, r"query input at row 5, .* is inf"),
    "nan in the last of many features": (
        {"train": (inputs(N, 1, 2, 2).index_fill(0, torch.tensor([3]), np.nan), labels(N))},
        r"train input at row 3, feature 0 is nan",
    ),
    "label too large": (
        {"train": (inputs(N, 1), labels(N) + 1)},
        r"train target 3 at row 2 is outside 0 … 2: the model has 3 outputs",
    ),
    "label negative": (
        {"query": (inputs(QUERIES, 2), labels(QUERIES) - 1)},
        r"query target -1 at row 0",
    ),
    "float labels": (
        {"train": (inputs(N, 1), labels(N).float())},
        r"integer class labels.*float32",
    ),
    "bool labels": ({"train": (inputs(N, 1), labels(N) > 0)}, r"integer class labels.*bool"),
    "one-hot labels": (
        {"train": (inputs(N, 1), nn.functional.one_hot(labels(N)))},
        r"shape \(N,\), got torch.int64 of shape \(12, 3\)",
    ),
    "empty": ({"train": (inputs(0, 1), labels(0))}, r"train is empty"),
    "no features": ({"train": (torch.zeros(N, 0), labels(N))}, r"train is empty.*\(12, 0\)"),
    "mismatched": ({"query": (inputs(5, 2), labels(4))}, r"query has 5 inputs but 4 targets"),
    "1-D inputs": ({"train": (torch.zeros(N), labels(N))}, r"\(N, features\), got shape \(12,\)"),
    "0-D inputs": ({"train": (torch.tensor(1.0), labels(1))}, r"got shape \(\)"),
    "0-D targets": ({"train": (inputs(N, 1), torch.tensor(1))}, r"a single number as targets"),
    "integer inputs": (
        {"train": (torch.zeros(N, D, dtype=torch.int64), labels(N))},
        r"train inputs of shape \(12, 3\).*whole numbers stay whole: give features as x.float\(\)",
    ),
    "tokens beyond the embedding": (
        {
            "model": nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(4 * D, 3)),
            "train": (torch.arange(N * D).view(N, D) % 9, labels(N)),
            "query": (torch.zeros(5, D, dtype=torch.int64), labels(5)),
        },
        r"whole numbers among the inputs are 0 to 8: .* from 0 to num_embeddings - 1",
    ),
    "complex inputs": (
        {"train": (torch.zeros(N, D, dtype=torch.complex64), labels(N))},
        r"train inputs are torch.complex64: give real and imaginary parts",
    ),
    "not a pair": ({"train": inputs(N, 1)}, r"train must be a pair .* got Tensor"),
    "lists": ({"train": ([[1.0, 2.0, 3.0]], [0])}, r"train inputs 0 must be a tensor or .* list"),
    "inputs of different length": (
        {"train": ((inputs(N, 1), inputs(N - 1, 1)), labels(N))},
        r"train inputs have different numbers of rows: 0 \(12, 3\), 1 \(11, 3\)",
    ),
    "one input for a model of another name": (
        {
            "train": ({"tokens": inputs(N, 1)}, labels(N)),
            "query": ({"tokens": inputs(QUERIES, 2)}, labels(QUERIES)),
        },
        r"cannot be applied .* tokens \(12, 3\): TypeError: .* 'tokens'",
    ),
    "queries of another kind": (
        {"query": ({"x": inputs(QUERIES, 2)}, labels(QUERIES))},
        r"queries must look like training examples: inputs \(12, 3\) against x \(4, 3\)",
    ),
    "queries without one of the inputs": (
        {
            "train": ((inputs(N, 1), inputs(N, 3)), labels(N)),
            "query": ((inputs(QUERIES, 2),), labels(QUERIES)),
        },
        r"inputs 0 \(12, 3\), 1 \(12, 3\) against 0 \(4, 3\)",
    ),
    "nan in one of several inputs": (
        {
            "train": ({"a": inputs(N, 3), "b": spoiled(np.nan)}, labels(N)),
            "query": ({"a": inputs(QUERIES, 2), "b": inputs(QUERIES, 4)}, labels(QUERIES)),
        },
        r"train input b at row 5, feature 2 is nan",
    ),
    "an empty dict": ({"train": ({}, labels(N))}, r"train inputs: a dict needs names"),
    "an empty tuple": ({"train": ((), labels(N))}, r"train inputs are an empty tuple"),
    "object array": (
        {"train": (np.array([["a", "b", "c"]] * N, dtype=object), labels(N))},
        r"train inputs cannot be a tensor",
    ),
    "wrong width": (
        {"query": (inputs(4, 2, 5), labels(4))},
        r"queries must look like training examples: inputs \(12, 3\) against \(4, 5\)",
    ),
    "query is a training example": (
        {"query": (inputs(N, 1)[[7]], labels(1))},
        r"query 0 is training example 7.*allow_query_in_train",
    ),
    "query is one up to the sign of zero": (
        {"train": (torch.zeros(2, D), labels(2)), "query": (-torch.zeros(1, D), labels(1))},
        r"query 0 is training example 1",
    ),
    "no loss": ({"loss": None}, r"loss NoneType is not supported: use torch.nn.CrossEntropyLoss"),
    "a class instead of a loss": ({"loss": nn.MSELoss}, r"pass an instance, MSELoss\(\)"),
    "no recipe": ({"recipe": {"lr": 0.1}}, r"Problem.recipe must be a Recipe, got dict"),
    "no model": ({"model": lambda x: x}, r"Problem.model must be a Module, got function"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named(case: str) -> None:
    changes, message = BAD_DATA[case]
    with pytest.raises(ProblemError, match=message):
        make(**changes)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.zeros(N), r"shape of the model's outputs \(12, 1\), got \(12,\): use y\[:, None\]"),
        (torch.zeros(N, 2), r"got \(12, 2\)"),
        (torch.full((N, 1), np.nan), r"train target at row 0, output 0 is nan"),
        (torch.zeros(N, 1, dtype=torch.complex64), r"complex64"),
    ],
)
def test_bad_regression_targets_are_named(y: torch.Tensor, message: str) -> None:
    query = (inputs(QUERIES, 2), torch.zeros(QUERIES, 1))
    with pytest.raises(ProblemError, match=message):
        make(mlp((D, 4, 1), nn.Tanh, 0), loss=nn.MSELoss(), train=(inputs(N, 1), y), query=query)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_parameters_that_are_not_finite_are_named(value: float) -> None:
    model = mlp((D, 4, CLASSES), nn.Tanh, 0)
    with torch.no_grad():
        model[2].bias[1] = value
    with pytest.raises(ProblemError, match=r"parameter 2\.bias holds NaN or infinity"):
        make(model)


def test_outputs_that_overflow_are_named() -> None:
    x = inputs(N, 1)
    x[4] = 1e30
    with pytest.raises(ProblemError, match=r"output is not finite at train row 4"):
        make(Wrapped(lambda layer, x: layer(x) * 1e290), train=(x, labels(N)))


def test_cross_entropy_over_one_output_is_refused() -> None:
    with pytest.raises(ProblemError, match="single output"):
        make(mlp((D, 1), nn.Tanh, 0), train=(inputs(N, 1), 0 * labels(N)))


class Wrapped(nn.Module):
    """One linear layer and a function of it and the inputs."""

    def __init__(
        self,
        function: Callable[[nn.Linear, torch.Tensor], object],
        layer: nn.Module | None = None,
        **children: nn.Module,
    ) -> None:
        super().__init__()
        self.layer = layer or mlp((D, CLASSES), nn.Tanh, 0)[0]
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x: torch.Tensor) -> object:
        return self.function(self.layer, x)


def pruned() -> nn.Module:
    from torch.nn.utils import prune

    model = mlp((D, CLASSES), nn.Tanh, 0)
    prune.l1_unstructured(model[0], "weight", 2)
    return model


class Large(nn.Module):
    """Many parameters that belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Parameter(torch.ones(D, 3000))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x @ self.wide)[:, :CLASSES]


class Centred(nn.Module):
    """Subtracts the mean of the batch while training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x - x.mean(0) if self.training else x


def noisy(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return layer(x) + torch.randn(CLASSES)


def centred(layer: nn.Linear, x: torch.Tensor) -> torch.Tensor:
    f = layer(x)
    return f - f.mean(0)


def _orthogonal(layer: nn.Linear) -> nn.Linear:
    """Singular values 1, 0.99 and 0.98: power iteration is far from converged when it starts."""
    torch.manual_seed(0)
    rows = nn.init.orthogonal_(torch.empty_like(layer.weight))
    scale = torch.tensor([1.0, 0.99, 0.98])[: len(rows), None]
    layer.weight = nn.Parameter(scale * rows)
    return layer


UNSUPPORTED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "BatchNorm without statistics": (
        lambda: nn.Sequential(nn.BatchNorm1d(D, track_running_stats=False), nn.Linear(D, 3)),
        "module 0 is BatchNorm1d without running statistics, which couples the examples",
    ),
    "Dropout": (lambda: nn.Sequential(nn.Linear(D, 3), nn.Dropout(0.3)), r"1 is Dropout\(p=0.3\)"),
    "Dropout beside a layer norm": (
        lambda: nn.Sequential(nn.Linear(D, 3), nn.LayerNorm(3), nn.Dropout(0.3)).train(),
        r"2 is Dropout\(p=0.3\)",
    ),
    "functional dropout": (
        lambda: Wrapped(lambda layer, x: nn.functional.dropout(layer(x), 0.5)),
        "random",
    ),
    "statistics of the batch in training mode": (
        lambda: nn.Sequential(nn.Linear(D, 3), Centred()),
        "outputs in training mode differ from those in evaluation mode",
    ),
    "spectral norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.spectral_norm(_orthogonal(nn.Linear(D, 3)))
        ),
        "outputs in training mode differ from those in evaluation mode",
    ),
    "parameters without effect": (
        lambda: Wrapped(lambda l, x: l(x), attention=nn.MultiheadAttention(4, 1)),
        "parameter attention.in_proj_weight has no effect on the model's outputs: freeze it",
    ),
    "free parameter without effect": (
        lambda: Wrapped(lambda l, x: l(x), scale=nn.ParameterList([torch.ones(1)])),
        "parameter scale.0 has no effect",
    ),
    "not used": (
        lambda: Wrapped(lambda l, x: l(x), idle=nn.Linear(2, 2)),
        r"parameter idle\.weight has no effect .* remove it",
    ),
    "large block without a Kronecker form": (
        lambda: Large(),
        r"block model \(Large\) has 9,000 parameters and no Kronecker form: .* up to 8,192; freeze",
    ),
    "pruned": (pruned, r"make pruning .* permanent \(torch.nn.utils.prune.remove"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(3)), r"0\.weight is lazy"),
    "lazy normalisation": (
        lambda: nn.Sequential(nn.Linear(D, 3), nn.LazyBatchNorm1d()),
        r"1\.weight is lazy",
    ),
    "complex": (
        lambda: Wrapped(
            lambda l, x: l(x.to(torch.complex64)).abs(), nn.Linear(D, 3, dtype=torch.complex64)
        ),
        r"parameter layer\.weight is torch.complex64, not real",
    ),
    "no parameters": (lambda: nn.Sequential(nn.Tanh()), "no trainable parameters"),
    "all frozen": (
        lambda: mlp((D, CLASSES), nn.Tanh, 0).requires_grad_(False),
        r"no trainable parameters: all are frozen \(requires_grad=False\)",
    ),
    "random": (lambda: Wrapped(noisy), "the model is random"),
    "couples examples": (lambda: Wrapped(centred), "changes with the rest of its batch"),
    "detached": (lambda: Wrapped(lambda l, x: l(x).detach()), "no_grad"),
    "changes its inputs": (
        lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(D, 3)),
        r"changes its input in place, and the data with it",
    ),
    "in parallel": (
        lambda: nn.DataParallel(nn.Linear(D, 3)),
        r"is DataParallel, inside of which layers cannot be seen: .*\.module",
    ),
    "compiled": (
        lambda: torch.compile(mlp((D, 3), nn.Tanh, 0)),
        r"is OptimizedModule, .*\._orig_mod",
    ),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("case", UNSUPPORTED)
def test_unsupported_models_are_named(case: str) -> None:
    build, message = UNSUPPORTED[case]
    with pytest.raises(UnsupportedModelError, match=message):
        make(build())


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda l, x: (l(x), x), "tuple"),
        (lambda l, x: l(x)[:, 0], r"got torch.float64 \(2,\)"),
        (lambda l, x: l(x)[:1], r"got torch.float64 \(1, 3\)"),
        (lambda l, x: l(x) > 0, "bool"),
        (lambda l, x: l(x) @ torch.ones(D, D), "cannot be applied in float64 to train inputs"),
    ],
)
def test_outputs_of_another_form_are_named(function: Callable, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make(Wrapped(function))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("function", "child", "said"),
    [
        (lambda m, x: m(x) if x.sum() > 1e9 else m(x) * 1.0, nn.LayerNorm(D), "control flow"),
        (lambda m, x: m(x[:, None])[0][:, 0], nn.LSTM(D, D, batch_first=True), "torch.func"),
    ],
)
def test_a_model_that_torch_func_cannot_follow_is_named(
    function: Callable, child: nn.Module, said: str
) -> None:
    """Exact blocks need the model example by example, under torch.func."""
    model = Applied(
        lambda m, x: m.out(function(m.child, x)), child=child, out=nn.Linear(D, CLASSES)
    )
    with pytest.raises(UnsupportedModelError, match=said):
        build_chain(make(model))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_weight_norm_is_found_out_by_its_second_derivatives() -> None:
    """PyTorch's fused derivative is wrong under torch.func, which an asymmetric H gives away."""
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(D, CLASSES)))
    message = ""
    try:
        hessian = build_chain(make(model))["hessian"].dense()
        torch.testing.assert_close(hessian, hessian.T)  # a PyTorch that has it right
    except UnsupportedModelError as error:
        message = str(error)
    assert not message or "are not symmetric" in message


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0])), "2 entries, but .* 3 outputs"),
        (nn.CrossEntropyLoss(reduction="sum"), "reduction='sum'"),
        (nn.MSELoss(reduction="sum"), "reduction='sum'"),
        (nn.L1Loss(), "L1Loss is not supported"),
        (nn.BCEWithLogitsLoss(), r"outputs \(12, 3\), got \(12,\)"),
        (nn.BCELoss(), "BCELoss is not supported"),
    ],
)
def test_losses_that_do_not_fit_are_refused(loss: nn.Module, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        make(loss=loss)


def test_arrays_are_copied_in_any_layout() -> None:
    x = np.asfortranarray(inputs(N, 1).numpy())[::-1].astype(">f8")
    x.flags.writeable = False
    problem = make(train=(x, labels(N).numpy().astype(np.uint8)))
    np.testing.assert_array_equal(problem.train[0].numpy(), x)
    assert problem.train[1].dtype == torch.int64
    assert not np.shares_memory(problem.train[0].numpy(), x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_keep_their_values(dtype: torch.dtype) -> None:
    x = inputs(N, 1).to(dtype)
    problem = make(train=(x, labels(N)))
    assert problem.train[0].dtype == torch.float32
    assert bool((problem.train[0].to(dtype) == x).all())


def test_inputs_that_require_gradients_are_detached() -> None:
    problem = make(train=(inputs(N, 1).requires_grad_(), labels(N)))
    assert not problem.train[0].requires_grad


def test_one_class_only_is_a_problem_like_any_other() -> None:
    chain = build_chain(make(train=(inputs(N, 1), 0 * labels(N))))
    assert bool(torch.isfinite(chain["hessian"].eigenvalues()).all())


def test_one_regression_output() -> None:
    y, yq = inputs(N, 3, 1), inputs(QUERIES, 4, 1)
    problem = make(
        mlp((D, 4, 1), nn.Tanh, 0),
        loss=nn.MSELoss(),
        train=(inputs(N, 1), y),
        query=(inputs(QUERIES, 2), yq),
    )
    assert influence_scores(problem, build_chain(problem)["kfac"], 0.1).shape == (QUERIES, N)


def test_whole_number_regression_targets_become_floats() -> None:
    problem = make(
        loss=nn.MSELoss(),
        train=(inputs(N, 1), torch.ones(N, CLASSES, dtype=torch.int64)),
        query=(inputs(QUERIES, 2), torch.ones(QUERIES, CLASSES, dtype=torch.bool)),
    )
    assert problem.train[1].is_floating_point()
    assert problem.query[1].is_floating_point()


def test_queries_may_be_training_examples_if_asked() -> None:
    x, y = inputs(N, 1), labels(N)
    assert make(query=(x, y), allow_query_in_train=True).num_queries == N


def test_a_model_in_training_mode_without_randomness_is_welcome() -> None:
    model = nn.Sequential(nn.Linear(D, CLASSES), nn.Dropout(0.0)).train()
    make(model)
    assert model.training


def _state(model: nn.Module) -> tuple:
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        {name: p.requires_grad for name, p in model.named_parameters()},
        {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        [m.training for m in model.modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
    )


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_untouched(training: bool) -> None:
    """Parameters, gradients, mode and hooks, by everything that a user can call."""
    model = mlp((D, 4, CLASSES), nn.Tanh, 0).train(training)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    calls: list[int] = []
    model[1].register_forward_hook(lambda *_: calls.append(1))
    before, generator = copy.deepcopy(_state(model)), torch.get_rng_state()
    problem = make(model, recipe=Recipe(epochs=1, batch_size=4))
    influence_scores(problem, build_chain(problem)["hessian"], 0.1)
    run(problem, settings=Settings(masks=8, second_order_masks=2, resamples=100), progress=False)
    torch.testing.assert_close(_state(model), before, rtol=0, atol=0)
    assert bool((torch.get_rng_state() == generator).all())


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 6),
    queries=st.integers(1, 4),
    shape=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    hidden=st.integers(1, 4),
    classes=st.integers(2, 4),
    regression=st.booleans(),
)
def test_any_shape_of_inputs_and_outputs(
    n: int, queries: int, shape: list[int], hidden: int, classes: int, regression: bool
) -> None:
    width = int(np.prod(shape))
    model = nn.Sequential(nn.Flatten(), *mlp((width, hidden, classes), nn.GELU, 0))

    def targets(count: int) -> torch.Tensor:
        return torch.zeros(count, classes) if regression else torch.arange(count) % classes

    problem = Problem(
        model,
        nn.MSELoss() if regression else nn.CrossEntropyLoss(),
        (inputs(n, 1, *shape), targets(n)),
        (inputs(queries, 2, *shape), targets(queries)),
    )
    assert (problem.num_examples, problem.num_queries) == (n, queries)
    assert problem.num_parameters == (width + 1) * hidden + (hidden + 1) * classes
    chain = build_chain(problem)
    scores = influence_scores(problem, chain["ekfac"], 0.1)
    assert scores.shape == (queries, n)
    assert bool(torch.isfinite(scores).all())


def test_every_error_is_one_of_ours() -> None:
    assert issubclass(ProblemError, DecompositionError)
    assert issubclass(UnsupportedModelError, DecompositionError)
