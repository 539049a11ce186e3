"""``initial=`` is checked when a problem is made, and what each message proposes is the way out."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from decomposition import Problem, Recipe, Settings, run
from decomposition.errors import ProblemError

TINY = Settings(masks=20, second_order_masks=4, matrix_norms=False, lattice=False, resamples=100)


def network(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


class Wrapped(nn.Module):
    """The same network under another name."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def problem(initial: object, model: nn.Module | None = None) -> Problem:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 3, generator=generator)
    y = torch.arange(24) % 2
    data = {"train": (x[:20], y[:20]), "query": (x[20:], y[20:])}
    model = model or network()
    return Problem(model, nn.CrossEntropyLoss(), recipe=Recipe(epochs=1), initial=initial, **data)  # type: ignore[arg-type]


def renamed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


WRAPPED = {
    "DataParallel": (renamed("module.", network(5).state_dict()), None),
    "torch.compile": (renamed("_orig_mod.", network(5).state_dict()), None),
    "both": (renamed("module._orig_mod.", network(5).state_dict()), None),
    "a trainer": (renamed("model.", network(5).state_dict()), None),
    "the network inside": (network(5).state_dict(), Wrapped()),
    "a compiled part": (renamed("net._orig_mod.", network(5).state_dict()), Wrapped()),
}


@pytest.mark.parametrize(("initial", "model"), WRAPPED.values(), ids=WRAPPED)
def test_the_code_in_the_message_makes_the_names_right(
    initial: dict[str, Tensor], model: nn.Module | None
) -> None:
    with pytest.raises(ProblemError, match=r"lacks .*0\.weight.* and holds ") as caught:
        problem(initial, model)
    code = re.search(r"give (\{.*\})$", str(caught.value))
    assert code is not None
    right = eval(code[1], {"initial": initial})
    tree = run(problem(right, model), settings=TINY, progress=False)
    assert np.isfinite(tree["attribution"].to_dataset()["lds_mean"].values).all()


STATE = network(5).state_dict()
BAD: dict[str, tuple[object, str]] = {
    "missing": (dict(list(STATE.items())[:2]), r"lacks 2\.weight, 2\.bias: give .*deepcopy"),
    "surplus": ({**STATE, "4.weight": STATE["0.weight"]}, r"holds 4\.weight, which the model has"),
    "many": (renamed("x", {str(i): STATE["0.bias"] for i in range(9)}), r"x3 and 5 more"),
    "shape": (
        {**STATE, "0.bias": torch.zeros(2)},
        r"\['0\.bias'\] must have shape \(4,\), got \(2",
    ),
    "nan": ({**STATE, "0.bias": torch.full((4,), np.nan)}, r"\['0\.bias'\] holds NaN"),
    "array": ({**STATE, "0.bias": np.zeros(4)}, r"'0\.bias'\] must be a tensor .* got ndarray"),
    "whole numbers": ({**STATE, "0.bias": torch.zeros(4).long()}, r"tensor of floats, got torch.i"),
    "meta": ({**STATE, "0.bias": torch.zeros(4, device="meta")}, "on the device meta"),
    "sparse": ({**STATE, "0.bias": torch.zeros(4).to_sparse()}, r"sparse .*to_dense\(\)"),
    "model": (network(), "must be a Mapping, got Sequential"),
    "path": ("start.pt", "must be a Mapping, got str"),
    "checkpoint": ({"epoch": 3, "state": STATE}, r"give the state dict alone.*\['state'\]"),
}


@pytest.mark.parametrize(("initial", "message"), BAD.values(), ids=BAD)
def test_what_is_no_state_dict_of_the_model_is_named(initial: object, message: str) -> None:
    with pytest.raises(ProblemError, match=message):
        problem(initial)


def test_buffers_and_tied_names_are_no_surplus() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)
            self.b.weight = self.a.weight
            self.norm, self.out = nn.BatchNorm1d(3), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.norm(torch.tanh(self.b(torch.tanh(self.a(x))))))

    assert problem(Tied().state_dict(), Tied()).initial is not None
