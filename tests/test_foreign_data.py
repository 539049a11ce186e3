"""Data as other libraries hold them: the same chain as from tensors, or refused with a way out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from numpy.lib.recfunctions import structured_to_unstructured, unstructured_to_structured
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from decomposition import Problem, build_chain
from decomposition.errors import ProblemError, UnsupportedModelError

N, D, CLASSES = 12, 3, 3
GENERATOR = torch.Generator().manual_seed(0)
X, XQ = (torch.randn(n, D, generator=GENERATOR) for n in (N, 4))
Y, YQ = torch.arange(N) % CLASSES, torch.arange(4) % CLASSES
A, LABELS = X.numpy(), Y.numpy()


def model() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(D, 2), nn.Tanh(), nn.Linear(2, CLASSES))


def problem(train: object = (X, Y), **changes: object) -> Problem:
    given = {"model": model(), "loss": nn.CrossEntropyLoss(), "train": train, "query": (XQ, YQ)}
    return Problem(**(given | changes))  # type: ignore[arg-type]


def curvature(given: Problem) -> Tensor:
    return build_chain(given)["hessian"].dense()


def unwriteable(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


TAKEN: dict[str, tuple[object, object]] = {
    "arrays": (A, LABELS),
    "read-only": (unwriteable(A), unwriteable(LABELS)),
    "negative strides": (A[::-1].copy()[::-1], LABELS[::-1].copy()[::-1]),
    "other byte order": (A.astype(">f8"), LABELS.astype(">i2")),
    "columns first": (np.asfortranarray(A), LABELS),
    "nothing masked": (np.ma.masked_array(A), LABELS),
    "views of tensors": (torch.cat([X.T, X.T])[:D].T, Y.repeat(2)[:N]),
    "expanded": (X[:, None].expand(N, 1, D)[:, 0], Y[:, None].expand(N, 2)[:, 1]),
    "with gradients": (X.clone().requires_grad_() * 1.0, Y),
    "parameters": (nn.Parameter(X), Y),
    "a view of complex numbers": (torch.complex(X, -X).conj().imag, Y),
    "unsigned labels": (X, LABELS.astype(np.uint32)),
}


@pytest.mark.parametrize("case", TAKEN)
def test_the_layout_of_data_does_not_matter(case: str) -> None:
    torch.testing.assert_close(curvature(problem(TAKEN[case])), curvature(problem()))


REFUSED: dict[str, tuple[str, Callable[[], object], Callable[[], object]]] = {
    "records": (
        "records: .*structured_to_unstructured",
        lambda: (unstructured_to_structured(A), Y),
        lambda: (structured_to_unstructured(unstructured_to_structured(A)), Y),
    ),
    "objects": (
        r"objects: give numbers, x.astype\(float\)",
        lambda: (A.astype(object), Y),
        lambda: (A.astype(object).astype(float), Y),
    ),
    "labels as objects": (
        r"train targets .* or x.astype\(int\) for labels",
        lambda: (X, LABELS.astype(object)),
        lambda: (X, LABELS.astype(object).astype(int)),
    ),
    "labels as text": (
        r"text: number its values, numpy.unique\(x, return_inverse=True\)\[1\]",
        lambda: (X, LABELS.astype(str)),
        lambda: (X, np.unique(LABELS.astype(str), return_inverse=True)[1]),
    ),
    "dates": (
        r"dates: count from the first, \(x - x.min\(\)\) / numpy.timedelta64\(1, 's'\)",
        lambda: ((1e3 * A).astype("M8[s]"), Y),
        lambda: (_seconds((1e3 * A).astype("M8[s]")), Y),
    ),
    "more than double precision": (
        r"give x.astype\('float64'\)",
        lambda: (A.astype(np.longdouble), Y) if np.longdouble(0).itemsize > 8 else (A.tolist(), Y),
        lambda: (A.astype(np.longdouble).astype("float64"), Y),
    ),
    "complex": (
        "give real and imaginary parts",
        lambda: (A.astype(complex), Y),
        lambda: (A.astype(complex).real, Y),
    ),
    "masked": (
        r"train inputs have 1 masked values: .* x.filled\(0.0\)",
        lambda: (np.ma.masked_equal(A, A[3, 1]), Y),
        lambda: (np.ma.masked_equal(A, A[3, 1]).filled(0.0), Y),
    ),
    "a data frame": (
        r"train inputs must be .* got DataFrame: give its .to_numpy\(\)",
        lambda: (pd.DataFrame(A), Y),
        lambda: (pd.DataFrame(A).to_numpy(), Y),
    ),
    "a series": (
        r"train targets must be .* got Series: give its .to_numpy\(\)",
        lambda: (X, pd.Series(LABELS)),
        lambda: (X, pd.Series(LABELS).to_numpy()),
    ),
    "an array with names": (
        r"got DataArray: give its .to_numpy\(\)",
        lambda: (xr.DataArray(A), Y),
        lambda: (xr.DataArray(A).to_numpy(), Y),
    ),
    "rows in lists": (
        r"got list: a list of numbers, or of rows of them, .* torch.tensor\(x\)",
        lambda: (A.tolist(), Y),
        lambda: (torch.tensor(A.tolist()), Y),
    ),
    "labels in a list": (
        r"train targets .* torch.tensor\(x\)",
        lambda: (X, LABELS.tolist()),
        lambda: (X, torch.tensor(LABELS.tolist())),
    ),
    "a dataset as inputs": (
        "got TensorDataset: a data set holds inputs and targets, .* train=dataset",
        lambda: (TensorDataset(X, Y), Y),
        lambda: TensorDataset(X, Y),
    ),
}


def _seconds(x: np.ndarray) -> np.ndarray:
    return (x - x.min()) / np.timedelta64(1, "s") / 1e3


@pytest.mark.parametrize("case", REFUSED)
def test_other_data_are_refused_with_what_to_give(case: str) -> None:
    words, wrong, right = REFUSED[case]
    if case == "more than double precision" and np.longdouble(0).itemsize <= 8:
        pytest.skip("long double is double here")
    with pytest.raises(ProblemError, match=words):
        problem(wrong())
    assert curvature(problem(right())).isfinite().all()


class Optional(nn.Module):
    """A second input with a default."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = model()

    def forward(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        return self.inner(x if shift is None else x + shift)


@pytest.mark.parametrize("kind", [dict, tuple])
def test_an_input_that_is_none_is_left_out(kind: type) -> None:
    def given(names: SimpleNamespace) -> Problem:
        pairs = [({"x": x} | vars(names), y) for x, y in ((X, Y), (XQ, YQ))]
        train, query = ((kind(x if kind is dict else x.values()), y) for x, y in pairs)
        return problem(train, query=query, model=Optional())

    with pytest.raises(ProblemError, match="None is left out of the tuple or dict"):
        given(SimpleNamespace(shift=None))
    torch.testing.assert_close(curvature(given(SimpleNamespace())), curvature(problem()))


@pytest.mark.parametrize("dtype", ["u2", "u4", "u8"])
def test_unsigned_tokens_of_any_width(dtype: str) -> None:
    tokens = np.arange(4 * (N + 4)).reshape(-1, 4)
    network = nn.Sequential(nn.Embedding(64, 2), nn.Flatten(), nn.Linear(8, CLASSES))

    def of(kind: str) -> Problem:
        train, query = (tokens[:N].astype(kind), Y), (tokens[N:].astype(kind), YQ)
        return problem(train, query=query, model=network)

    torch.testing.assert_close(curvature(of(dtype)), curvature(of("i8")))


def test_tokens_beyond_64_bits_are_refused() -> None:
    with pytest.raises(ProblemError, match=r"2\^63 and more"):
        problem((np.full((N, 4), 2**63, np.uint64), Y))


class Rotated(nn.Module):
    """Outputs in the complex plane, by constants or parameters."""

    def __init__(self, learned: bool, **phase: Tensor) -> None:
        super().__init__()
        self.inner = model()
        for name, values in phase.items():
            if learned:
                self.register_parameter(name, nn.Parameter(values.clone()))
            else:
                self.register_buffer(name, values)

    def forward(self, x: Tensor) -> Tensor:
        whole = hasattr(self, "phase")
        turned = self.inner(x) * (self.phase if whole else torch.complex(self.real, self.imag))
        return turned.real + turned.imag**2


@pytest.mark.parametrize("learned", [False, True])
def test_complex_numbers_of_a_model_are_kept_as_two(learned: bool) -> None:
    """A change of precision would drop the imaginary part without a word."""
    phase = torch.complex(X[0], X[1])
    with pytest.raises(UnsupportedModelError, match=r"phase is torch\.complex64.*torch\.complex\("):
        problem(model=Rotated(learned, phase=phase))
    right = Rotated(learned, real=phase.real, imag=phase.imag)
    assert curvature(problem(model=right)).any()
