"""Results of models that are not outputs (N, C): the way out that the refusal names is followed."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from decomposition import Problem, build_chain
from decomposition.errors import ProblemError, UnsupportedModelError

N, D, CLASSES = 12, 3, 2


@dataclass
class Result:
    """As libraries return it."""

    loss: None
    hidden: Tensor
    logits: Tensor


class ModelOutput(OrderedDict):
    """A dict whose keys are attributes, as in Hugging Face transformers."""

    def __getattr__(self, name: str) -> object:
        if name in self:
            return self[name]
        raise AttributeError(name)


Named = namedtuple("Named", ["hidden", "out"])


class Returning(nn.Module):
    """A network whose forward pass returns a function of its hidden values and outputs."""

    def __init__(self, form: Callable[[Tensor, Tensor], object], outputs: int = CLASSES) -> None:
        super().__init__()
        self.hidden, self.out, self.form = nn.Linear(D, 4), nn.Linear(4, outputs), form

    def forward(self, x: Tensor) -> object:
        hidden = self.hidden(x).tanh()
        return self.form(hidden, self.out(hidden))


class Around(nn.Module):
    """What the advice says: a module that takes ``out`` and returns an expression of it."""

    def __init__(self, inner: nn.Module, expression: str) -> None:
        super().__init__()
        self.inner, self.expression = inner, expression

    def forward(self, x: Tensor) -> Tensor:
        return eval(self.expression, {"out": self.inner(x), "torch": torch})


def problem(model: nn.Module, loss: nn.Module | None = None) -> Problem:
    x = torch.randn(N + 3, D, generator=torch.Generator().manual_seed(0))
    y = torch.arange(N + 3) % CLASSES if loss is None else x[:, :1] ** 2
    return Problem(model, loss or nn.CrossEntropyLoss(), (x[3:], y[3:]), (x[:3], y[:3]))


FORMS: dict[str, tuple[Callable[[Tensor, Tensor], object], str]] = {
    "dataclass": (lambda h, f: Result(None, h, f), "out.logits"),
    "model output": (lambda h, f: ModelOutput(hidden=h, logits=f), "out.logits"),
    "named tuple": (lambda h, f: Named(h, f), "out.out"),
    "dict": (lambda h, f: {"hidden": h, "logits": f}, 'out["logits"]'),
    "dict of unusual names": (lambda h, f: {"loss": f.mean(), "y": f}, 'out["y"]'),
    "tuple": (lambda h, f: (f, h), "out[0]"),
    "tuple behind a loss": (lambda h, f: (f.mean(), f), "out[1]"),
    "list": (lambda h, f: [f], "out[0]"),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_outputs_within_a_result_are_named(form: str) -> None:
    make, expression = FORMS[form]
    with pytest.raises(ProblemError) as refused:
        problem(Returning(make))
    assert "(N, C)" in str(refused.value)
    assert str(refused.value).endswith(f"and returns {expression}")
    chain = build_chain(problem(Around(Returning(make), expression)))
    assert bool(chain["hessian"].eigenvalues().isfinite().all())


TENSORS: dict[str, tuple[Callable[[Tensor, Tensor], object], str]] = {
    "squeezed": (lambda h, f: f.squeeze(-1), "out.unsqueeze(-1)"),
    "complex": (lambda h, f: torch.complex(f, f), "torch.view_as_real(out).flatten(1)"),
}


@pytest.mark.parametrize("form", TENSORS)
def test_outputs_of_another_shape_are_reshaped_by_the_advice(form: str) -> None:
    make, expression = TENSORS[form]
    with pytest.raises(ProblemError) as refused:
        problem(Returning(make, 1), nn.MSELoss())
    assert "(N, C)" in str(refused.value)
    assert expression in str(refused.value)
    loss = nn.MSELoss() if form != "complex" else None
    chain = build_chain(problem(Around(Returning(make, 1), expression), loss))
    assert bool(chain["hessian"].eigenvalues().isfinite().all())


def test_a_squeeze_of_every_dimension_is_left_out() -> None:
    """It takes the examples away too, where there is one alone."""
    bare = Returning(lambda h, f: f.squeeze(), 1)
    with pytest.raises(ProblemError, match=r"\(N, C\).*as one column, without the squeeze"):
        problem(bare, nn.MSELoss())
    with pytest.raises(UnsupportedModelError, match=r"one alone \(1,\); a squeeze\(\) needs"):
        problem(Around(bare, "out.unsqueeze(-1)"), nn.MSELoss())
    for right in (lambda h, f: f, lambda h, f: f.squeeze(-1).unsqueeze(-1)):
        assert build_chain(problem(Returning(right, 1), nn.MSELoss()))["ggn"].dense().any()


@pytest.mark.parametrize("form", [lambda h, f: f.mean(), lambda h, f: f.argmax(1)])
def test_what_holds_no_outputs_is_refused(form: Callable[[Tensor, Tensor], object]) -> None:
    with pytest.raises(ProblemError, match=r"\(N, C\).*: return (a row for|the numbers that)"):
        problem(Returning(form))
