"""The losses over which every identity is tested, beside torch's and closed forms in NumPy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from decomposition.losses import Loss, as_loss

C = 4
WEIGHT = (0.5, 2.0, 0.0, 1.25)
POSITIVE = (3.0, 0.2, 1.0, 0.0)
IGNORED, FAR = 1, 255


@dataclass(frozen=True)
class Case:
    """One loss with its options."""

    torchs: nn.Module
    """Torch's loss with reduction='mean'."""
    one: Callable[[np.ndarray, np.ndarray], float]
    """ℓ(f, y) of a single example, by NumPy."""
    binary: bool = False

    @property
    def ours(self) -> Loss:
        """Our loss."""
        return as_loss(self.torchs)

    def unreduced(self, f: Tensor, y: Tensor) -> Tensor:
        """Torch's loss with reduction='none'; means over outputs, where there are such."""
        loss = copy.deepcopy(self.torchs)
        loss.reduction = "none"  # pyright: ignore[reportAttributeAccessIssue]
        values = loss(f, y)
        return values if values.ndim == 1 else values.mean(-1)

    def example(self, n: int = 6, scale: float = 2.0, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Outputs and targets; some labels are ignored where that is an option."""
        generator = torch.Generator().manual_seed(100 * n + seed)
        f = scale * torch.randn(n, C, generator=generator, dtype=torch.float64)
        if isinstance(self.torchs, nn.CrossEntropyLoss):
            y = torch.arange(n) % C
            if self.torchs.ignore_index == FAR:
                y[1::3] = FAR
            return f, y
        if self.binary:
            y = torch.rand(n, C, generator=generator, dtype=torch.float64)
            y[0], y[-1] = 0.0, 1.0
            return f, y
        return f, torch.randn(n, C, generator=generator, dtype=torch.float64)


def cross_entropy(weight: bool, ignored: int | None, smoothing: float) -> Case:
    """One of the 2 × 3 × 2 combinations."""
    w = np.array(WEIGHT) if weight else np.ones(C)

    def one(f: np.ndarray, y: np.ndarray) -> float:
        if int(y) == ignored:
            return 0.0
        negative = np.log(np.exp(f - f.max()).sum()) + f.max() - f
        hard = (1 - smoothing) * w[int(y)] * negative[int(y)]
        return float(hard + smoothing / C * (w * negative).sum())

    return Case(
        nn.CrossEntropyLoss(
            weight=torch.tensor(WEIGHT, dtype=torch.float64) if weight else None,
            ignore_index=-100 if ignored is None else ignored,
            label_smoothing=smoothing,
        ),
        one,
    )


def binary(weight: bool, positive: bool) -> Case:
    """One of the four combinations."""
    w = np.array(WEIGHT) if weight else np.ones(C)
    u = np.array(POSITIVE) if positive else np.ones(C)

    def one(f: np.ndarray, y: np.ndarray) -> float:
        yes, no = np.logaddexp(0, -f), np.logaddexp(0, f)  # −log p, −log(1 − p)
        return float((w * (u * y * yes + (1 - y) * no)).mean())

    return Case(
        nn.BCEWithLogitsLoss(
            weight=torch.tensor(WEIGHT, dtype=torch.float64) if weight else None,
            pos_weight=torch.tensor(POSITIVE, dtype=torch.float64) if positive else None,
        ),
        one,
        binary=True,
    )


CASES: dict[str, Case] = {
    **{
        f"cross_entropy{'-weight' * w}{f'-ignore_{i}' if i else ''}{'-smoothed' if e else ''}": (
            cross_entropy(w, i, e)
        )
        for w in (False, True)
        for i in (None, IGNORED, FAR)
        for e in (0.0, 0.2)
    },
    **{
        f"binary{'-weight' * w}{'-pos_weight' * u}": binary(w, u)
        for w in (False, True)
        for u in (False, True)
    },
    "mse": Case(nn.MSELoss(), lambda f, y: float(np.square(f - y).mean())),
}


def numerical_hessian(case: Case, f: np.ndarray, y: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """Λ of one example by central differences of the NumPy loss; error about h² + 1e−16 / h²."""
    step = h * np.eye(len(f))
    return np.array(
        [
            [
                sum(i * j * case.one(f + i * a + j * b, y) for i in (1, -1) for j in (1, -1))
                / (4 * h * h)
                for b in step
            ]
            for a in step
        ]
    )
