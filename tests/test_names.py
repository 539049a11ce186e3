"""Names that no file can hold are escaped or refused before any work, and the result opens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from decomposition import DecompositionError, Problem, Recipe, Settings, run
from decomposition.checks import printable
from decomposition.curvature import ScaledIdentity
from decomposition.errors import UnsupportedModelError
from decomposition.results.read import open_result

TINY = Settings(
    masks=12,
    second_order_masks=0,
    matrix_norms=False,
    lattice=False,
    resamples=100,
    damping_points=3,
)


class Named(nn.Module):
    """A network whose first layer has any name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._modules[name] = nn.Linear(3, 3)
        self._modules["above"] = nn.Linear(3, 2)
        self.first = name

    def forward(self, x: Tensor) -> Tensor:
        return self._modules["above"](torch.tanh(self._modules[self.first](x)))  # type: ignore[misc]


def problem(layer: str = "below", name: str = "problem") -> Problem:
    x = torch.randn(28, 3, generator=torch.Generator().manual_seed(0))
    y = torch.arange(28) % 2
    data = (x[:24], y[:24]), (x[24:], y[24:])
    return Problem(Named(layer), nn.CrossEntropyLoss(), *data, Recipe(epochs=1), name=name)


def test_a_result_of_any_names_opens(tmp_path: Path) -> None:
    layer, shown = "a/b\0\n\ud800", "a%2Fb%00%0A%uD800"
    run(problem(layer, f"<{layer}>"), tmp_path, settings=TINY, progress=False)
    tree = open_result(tmp_path)
    assert set(tree["spectrum"].children) == {shown, "above"}  # type: ignore[union-attr]
    assert tree.attrs["problem"] == "<a/b%00%0A%uD800>"
    assert shown in (tmp_path / "report.html").read_text("utf-8")


@given(st.lists(st.text(max_size=4), unique=True, max_size=9))
def test_names_stay_apart_and_can_be_written(names: list[str]) -> None:
    shown = [printable(name, "/%") for name in names]
    assert len({*shown}) == len(names)
    assert all(name.isprintable() and "/" not in name for name in shown)


def test_a_module_that_torch_does_not_find_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="give that module another name"):
        problem("..")


def identity(problem: Problem) -> ScaledIdentity:
    return ScaledIdentity(problem.num_parameters, 1.0, problem.device)


@pytest.mark.parametrize(
    ("name", "approximation", "message"),
    [
        ("a\0b", identity, "printable characters"),
        ("\ud800", identity, "printable characters"),
        (" ", identity, "printable characters"),
        (3, identity, "printable characters"),
        ("kfac", identity, "the chain uses itself: choose another"),
        ("mine", torch.eye(3), "must be a function .* got Tensor"),
    ],
)
def test_a_rung_that_cannot_be_shown_is_refused_before_training(
    name: str, approximation: Callable, message: str, tmp_path: Path
) -> None:
    with pytest.raises(DecompositionError, match=message):
        run(problem(), tmp_path / "out", extra={name: approximation}, progress=False)
    assert not (tmp_path / "out").exists()
