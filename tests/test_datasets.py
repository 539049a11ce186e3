"""Data sets and loaders of torch.utils.data: the problem of their tensors, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from decomposition import Problem
from decomposition.errors import ProblemError
from decomposition.inputs import parts_of

N, D, CLASSES = 12, 3, 3
GENERATOR = torch.Generator().manual_seed(0)
X, XQ = (torch.randn(n, D, generator=GENERATOR) for n in (N, 4))
Y, YQ = torch.arange(N) % CLASSES, torch.arange(4) % CLASSES


class Rows(Dataset):
    """Whatever a function makes of a row's number."""

    def __init__(self, row: Callable[[int], object], rows: int = N) -> None:
        self.row, self.rows = row, rows

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, i: int) -> object:
        return self.row(i)


class Stream(IterableDataset):
    """Rows that come and go."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        yield from ((X[i], int(Y[i])) for i in range(N))


class Named(nn.Module):
    """Takes its inputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(D, CLASSES)

    def forward(self, x: Tensor, scale: Tensor) -> Tensor:
        return self.layer(x) * scale


def problem(train: object, query: object = (XQ, YQ), model: nn.Module | None = None) -> Problem:
    return Problem(model or nn.Linear(D, CLASSES), nn.CrossEntropyLoss(), train, query)  # type: ignore[arg-type]


def assert_same(found: tuple, expected: tuple) -> None:
    for one, other in zip(found, expected, strict=True):
        for name, part in parts_of(other).items():
            torch.testing.assert_close(parts_of(one)[name], part, rtol=0, atol=0)


TAKEN: dict[str, Callable[[], object]] = {
    "tensors": lambda: TensorDataset(X, Y),
    "numbers as labels": lambda: Rows(lambda i: (X[i], int(Y[i]))),
    "arrays": lambda: Rows(lambda i: (X[i].numpy(), Y[i].numpy())),
    "a part of another": lambda: Subset(
        TensorDataset(torch.cat([XQ, X]), torch.cat([YQ, Y])), range(4, 16)
    ),
    "batches": lambda: DataLoader(TensorDataset(X, Y), batch_size=5),
    "batches of one's own": lambda: DataLoader(
        Rows(lambda i: i, N), batch_size=5, collate_fn=lambda rows: (X[rows], Y[rows])
    ),
}


@pytest.mark.parametrize("case", TAKEN)
def test_a_data_set_is_the_pair_of_its_tensors(case: str) -> None:
    assert_same(problem(TAKEN[case]()).train, (X, Y))


def test_queries_may_be_a_data_set_too() -> None:
    found = problem(TensorDataset(X, Y), DataLoader(TensorDataset(XQ, YQ), batch_size=3))
    assert_same(found.query, (XQ, YQ))


@pytest.mark.parametrize("target", ["labels", "target", "y"])
def test_samples_by_name_become_arguments_by_name(target: str) -> None:
    def rows(x: Tensor, y: Tensor) -> Dataset:
        return Rows(lambda i: {"x": x[i], "scale": torch.ones(1), target: y[i]}, len(x))

    found = problem(rows(X, Y), rows(XQ, YQ), Named())
    assert_same(found.train, ({"x": X, "scale": torch.ones(N, 1)}, Y))


def test_several_inputs_in_a_tuple() -> None:
    def rows(x: Tensor, y: Tensor) -> Dataset:
        return Rows(lambda i: ((x[i], torch.ones(1)), y[i]), len(x))

    found = problem(rows(X, Y), rows(XQ, YQ), Named())
    assert_same(found.train, ((X, torch.ones(N, 1)), Y))


def test_sequences_are_padded_by_a_loader_to_one_length() -> None:
    def padded(rows: list[tuple[Tensor, int]], least: int) -> tuple[Tensor, Tensor]:
        x = pad_sequence([x for x, _ in rows], batch_first=True)
        short = max(0, least - x.shape[1])
        return nn.functional.pad(x, (0, short)), torch.tensor([y for _, y in rows])

    ragged = Rows(lambda i: (X[i, : 1 + i % D], int(Y[i])))
    found = problem(DataLoader(ragged, batch_size=5, collate_fn=lambda rows: padded(rows, D)))
    lengths = 1 + torch.arange(N) % D
    assert_same(found.train, (X * (torch.arange(D) < lengths[:, None]), Y))
    with pytest.raises(
        ProblemError, match=r"train row 1 .* \(2,\), \(\) against \(1,\), \(\);.*pads"
    ):
        problem(ragged)
    with pytest.raises(ProblemError, match="not to the longest of their batch"):
        problem(DataLoader(ragged, batch_size=2, collate_fn=lambda rows: padded(rows, 0)))


REFUSED: dict[str, tuple[str, Callable[[], object]]] = {
    "a stream": ("train is a Stream, a stream: example i must be the same row", Stream),
    "a loader of a stream": ("a stream", lambda: DataLoader(Stream())),
    "no rows": ("train is empty: Rows has no rows", lambda: Rows(lambda i: X[i], 0)),
    "an order of chance": (
        r"shuffles.*loader.dataset",
        lambda: DataLoader(TensorDataset(X, Y), shuffle=True),
    ),
    "a last batch that is dropped": (
        "drop_last=False",
        lambda: DataLoader(TensorDataset(X, Y), batch_size=5, drop_last=True),
    ),
    "random transforms": (
        "row 0 of Rows differs from one reading to the next",
        lambda: Rows(lambda i: (X[i] + torch.randn(D), int(Y[i]))),
    ),
    "inputs alone": (r"must be a pair \(inputs, target\) or a dict", lambda: TensorDataset(X)),
    "three parts": (r"got 3 parts; .* \(\(x1, x2\), y\)", lambda: TensorDataset(X, X, Y)),
    "no target": ("the keys x must have one of labels", lambda: Rows(lambda i: {"x": X[i]})),
    "text": ("train .* must be a tensor", lambda: Rows(lambda i: ("a sentence", int(Y[i])))),
    "an object": ("cannot be put together", lambda: Rows(lambda i: (ProblemError, int(Y[i])))),
    "a row that fails": (
        "train row 0 of Rows cannot be read: ZeroDivisionError",
        lambda: Rows(lambda i: 1 // i),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_data_set_without_fixed_rows_is_refused_with_the_reason(case: str) -> None:
    said, data = REFUSED[case]
    with pytest.raises(ProblemError, match=said):
        problem(data())
