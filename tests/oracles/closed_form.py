"""Curvature written out by hand in NumPy, without any automatic differentiation."""

from __future__ import annotations

import numpy as np

from decomposition.problem import Problem


def _arrays(problem: Problem) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    parameters = [p.detach().double().numpy() for p in problem.model.parameters()]
    return problem.train[0].double().numpy(), problem.train[1].numpy(), parameters


def _softmax(f: np.ndarray) -> np.ndarray:
    e = np.exp(f - f.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def linear_softmax_hessian(problem: Problem) -> np.ndarray:
    """(1/N) Σ (diag p − p pᵀ) ⊗ x xᵀ for weights, with x = 1 for biases."""
    x, _, (w, b) = _arrays(problem)
    p = _softmax(x @ w.T + b)
    size = w.size + b.size
    h = np.zeros((size, size))
    for xn, pn in zip(x, p, strict=True):
        jacobian = np.hstack([np.kron(np.eye(len(b)), xn[None, :]), np.eye(len(b))])
        h += jacobian.T @ (np.diag(pn) - np.outer(pn, pn)) @ jacobian
    return h / len(x)


def linear_regression_hessian(problem: Problem) -> np.ndarray:
    """(2/C) I ⊗ [x; 1][x; 1]ᵀ averaged: second moments of the inputs."""
    x, _, (_w, b) = _arrays(problem)
    outputs = len(b)
    second, first = x.T @ x / len(x), x.mean(0)
    eye = np.eye(outputs)
    weight_bias = np.kron(eye, first[:, None])
    return (2.0 / outputs) * np.block([[np.kron(eye, second), weight_bias], [weight_bias.T, eye]])


def two_layer_tanh_regression(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """H and GGN of f = W₂ tanh(W₁ x + b₁) + b₂ under ‖f − y‖²/C, term by term."""
    x, y, (w1, b1, w2, b2) = _arrays(problem)
    hidden, d_in = w1.shape
    outputs = len(b2)
    sizes = np.cumsum([0, w1.size, hidden, w2.size, outputs])
    ggn = np.zeros((sizes[-1], sizes[-1]))
    second = np.zeros_like(ggn)
    for xn, yn in zip(x, y, strict=True):
        t = np.tanh(w1 @ xn + b1)
        t1, t2 = 1 - t**2, -2 * t * (1 - t**2)
        r = 2.0 / outputs * (w2 @ t + b2 - yn)
        j = np.zeros((outputs, sizes[-1]))
        for c in range(outputs):
            for k in range(hidden):
                j[c, k * d_in : (k + 1) * d_in] = w2[c, k] * t1[k] * xn
                j[c, sizes[1] + k] = w2[c, k] * t1[k]
                j[c, sizes[2] + c * hidden + k] = t[k]
            j[c, sizes[3] + c] = 1.0
        ggn += 2.0 / outputs * j.T @ j
        for k in range(hidden):
            # z_k's own parameters: weights k and bias k of the first layer.
            inner = np.r_[np.arange(k * d_in, (k + 1) * d_in), sizes[1] + k]
            dz = np.r_[xn, 1.0]
            second[np.ix_(inner, inner)] += (r @ w2[:, k]) * t2[k] * np.outer(dz, dz)
            for c in range(outputs):
                outer = sizes[2] + c * hidden + k
                second[outer, inner] += r[c] * t1[k] * dz
                second[inner, outer] += r[c] * t1[k] * dz
    return (ggn + second) / len(x), ggn / len(x)
