"""The groups that follow from the shares, planted: orders, policies, where, prediction."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from decomposition.names import CHAIN, CI_BOUNDS, STEPS

ORDERS = [
    "linearisation > cross_layer > eigenbasis > eigenvalues",
    "cross_layer > linearisation > eigenbasis > eigenvalues",
]
PROTOCOLS = ["equal", "relative"]
BOUNDS = {"ci_bound": list(CI_BOUNDS)}


def interval(estimate: np.ndarray, half: float) -> np.ndarray:
    return np.stack([estimate - half, estimate, estimate + half], axis=-1)


def orders(shares: xr.Dataset) -> dict[str, xr.Dataset]:
    share, drop = (shares[name].reset_coords(drop=True) for name in ("share", "drop"))
    both = {
        f"{name}_by_order": xr.concat([one, one], "order").assign_coords(order=ORDERS)
        for name, one in (("share", share), ("drop", drop))
    }
    pair = ["cross_layer after linearisation, at hessian"]
    rungs = shares["rung"].values.tolist()
    return {
        "/shares/orders": xr.Dataset({**both, "first": drop, "last": drop}),
        "/shares/shapley": xr.Dataset(
            {
                "shapley": share,
                "shapley_drop": drop,
                "spread": 0.1 * share.isel(ci_bound=1, drop=True),
            }
        ),
        "/shares/interactions": xr.Dataset(
            {
                "interaction": (
                    ("protocol", "pair", "ci_bound"),
                    interval(np.full((2, 1), 0.01), 0.02),
                )
            },
            {"protocol": PROTOCOLS, "pair": pair} | BOUNDS,
        ),
        "/shares/mismatch": xr.Dataset(
            {
                "gap": (("rung", "ci_bound"), interval(np.linspace(0, 0.04, len(rungs)), 0.01)),
                "gap_share": (("rung", "ci_bound"), interval(np.linspace(0, 0.3, len(rungs)), 0.1)),
                "mismatch": ("ci_bound", [0.03, 0.04, 0.05]),
                "mismatch_share": ("ci_bound", [0.2, 0.3, 0.4]),
            },
            {"rung": rungs} | BOUNDS,
        ),
        "/shares/resolution": _resolution(),
    }


def _resolution() -> xr.Dataset:
    masks = np.array([4, 20, 40, 80, 400])
    width = np.tile(0.1 / np.sqrt(masks), (2, len(STEPS), 1))
    return xr.Dataset(
        {"width": (("protocol", "chain_step", "masks"), width)},
        {"protocol": PROTOCOLS, "chain_step": list(STEPS), "masks": masks},
    )


def policies(damping: np.ndarray) -> xr.Dataset:
    names = ["absolute", "signed"]
    return xr.Dataset(
        {
            "level": (("policy", "rung", "ci_bound"), interval(np.array([[0.62], [0.3]]), 0.02)),
            "level_damping": (("policy", "rung"), [[0.01], [1e-5]]),
            "indefinite": (("policy", "rung"), [[0], [1]]),
            "lds_by_damping": (
                ("policy", "rung", "damping"),
                np.linspace(0.1, 0.5, 2 * len(damping)).reshape(2, 1, -1),
            ),
        },
        {"policy": names, "rung": ["hessian"], "damping": damping} | BOUNDS,
    )


def where(blocks: Sequence[str], queries: int, rng: np.random.Generator) -> dict[str, xr.Dataset]:
    drop = rng.normal(0.03, 0.05, (len(STEPS), queries))
    found = {
        "/where/queries": xr.Dataset(
            {
                "drop": (("step", "query", "ci_bound"), interval(drop, 0.03)),
                "degraded": ("step", (drop > 0.03).mean(1)),
                "improved": ("step", (drop < -0.03).mean(1)),
            },
            {"step": list(STEPS), "query": np.arange(queries)} | BOUNDS,
        ),
        "/where/bands": _parts("band", ["1–10", "11–60"], list(STEPS), rng),
    }
    if blocks:
        steps = [s for s in STEPS if s != "cross_layer"]
        found["/where/layers"] = _parts("block", list(blocks), steps, rng)
    return found


def _parts(axis: str, parts: list[str], steps: list[str], rng: np.random.Generator) -> xr.Dataset:
    one = rng.normal(0.02, 0.02, (len(steps), len(parts)))
    return xr.Dataset(
        {
            "contribution": (("step", axis, "ci_bound"), interval(one, 0.01)),
            "total": (("step", "ci_bound"), interval(one.sum(1), 0.01)),
            "remainder": (("step", "ci_bound"), np.zeros((len(steps), 3))),
        },
        {"step": steps, axis: parts} | BOUNDS,
    )


def prediction(metrics: list[str]) -> xr.Dataset:
    rho = np.linspace(-0.8, 0.8, len(metrics))
    return xr.Dataset(
        {
            "rho": (("metric", "ci_bound"), interval(rho, 0.15)),
            "cells": ("metric", np.full(len(metrics), 36)),
            "rungs": ("metric", np.full(len(metrics), 6)),
        },
        {"metric": metrics} | BOUNDS,
    )


def base_models(level: xr.DataArray) -> xr.Dataset:
    middle = level.sel(ci_bound="estimate", drop=True)
    both = xr.concat([middle - 0.01, middle + 0.01], "base_model")
    return xr.Dataset({"level": both.assign_coords(base_model=[0, 1])})


def is_whole(rungs: Sequence[str]) -> bool:
    return set(CHAIN) <= set(rungs)
