"""Kronecker factors of two models with shared weights, written out in NumPy.

Both have one shared linear map and one dense layer, z_t = W a_t + b, h_t = tanh(z_t), and
f = V u + c with u the h_t side by side (``positions``) or their mean (``mean``):

    ∂f/∂z_t = V_t diag(1 − h_t²)   or   V diag(1 − h_t²) / T.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from decomposition.problem import Problem


@dataclass(frozen=True)
class SharedLayer:
    """Terms of the shared layer: inputs with 1 appended (N, T, width), roots (N, C, T, d_out)."""

    inputs: np.ndarray
    roots: np.ndarray

    def factors(self, sharing: str) -> tuple[np.ndarray, np.ndarray]:
        """(A, S) of K-FAC expand or reduce (Eschenhagen et al. 2023, equations 16 and 22)."""
        n, t, _ = self.inputs.shape
        if sharing == "expand":
            a = np.einsum("nti,ntj->ij", self.inputs, self.inputs) / (n * t)
            return a, np.einsum("ncti,nctj->ij", self.roots, self.roots) / n
        mean, total = self.inputs.mean(1), self.roots.sum(2)
        return (
            np.einsum("ni,nj->ij", mean, mean) / n,
            np.einsum("nci,ncj->ij", total, total) / n,
        )

    def eigenvalues(self, q_s: np.ndarray, q_a: np.ndarray) -> np.ndarray:
        """EK-FAC's: second moments of the rotated Jacobian rows, (d_out, width)."""
        rows = np.einsum("ncti,ntj->ncij", self.roots, self.inputs)
        rotated = np.einsum("ncij,ia,jb->ncab", rows, q_s, q_a)
        return (rotated**2).sum((0, 1)) / len(rows)


def shared_layer(problem: Problem, inputs: np.ndarray, pooled: bool) -> SharedLayer:
    """The terms from the inputs (N, T, d_in) and the four parameters W, b, V, c."""
    w, b, v, c = (p.detach().double().numpy() for p in problem.model.parameters())
    n, t, _ = inputs.shape
    hidden = np.tanh(inputs @ w.reshape(len(w), -1).T + b)  # (N, T, d)
    u = hidden.mean(1) if pooled else hidden.reshape(n, -1)
    jacobian = v[:, None] / t if pooled else v.reshape(len(v), t, -1)  # (C, T, d)
    slopes = np.einsum(
        "ctd,ntd->nctd", np.broadcast_to(jacobian, (len(v), t, len(b))), 1 - hidden**2
    )
    roots = np.einsum("nck,nctd->nktd", _root(u @ v.T + c), slopes)
    return SharedLayer(np.concatenate([inputs, np.ones((n, t, 1))], -1), roots)


def _root(f: np.ndarray) -> np.ndarray:
    """diag(√p) − p √pᵀ of the softmax."""
    e = np.exp(f - f.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    return np.sqrt(p)[:, :, None] * np.eye(f.shape[1]) - p[:, :, None] * np.sqrt(p)[:, None, :]


def windows(images: np.ndarray, kernel: int, stride: int = 1) -> np.ndarray:
    """(N, channels, H, W) → (N, T, channels·k·k), positions by rows, without padding."""
    view = np.lib.stride_tricks.sliding_window_view(images, (kernel, kernel), (2, 3))
    view = view[:, :, ::stride, ::stride].transpose(0, 2, 3, 1, 4, 5)
    return view.reshape(len(images), -1, images.shape[1] * kernel * kernel)
