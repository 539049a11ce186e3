"""A result tree with plausible numbers and nothing computed: what writer, reader and report see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr

from decomposition.names import BASELINES, CHAIN, CI_BOUNDS, STEPS
from decomposition.results.provenance import provenance
from tests.results import synthetic_shares as derived

DAMPING = np.logspace(-5, 1, 13)
STEPS_AND_CROSS = [*STEPS, "cross_term"]
LDS_AT_BEST: dict[str, float] = dict(zip(CHAIN, (0.62, 0.605, 0.53, 0.47, 0.45), strict=True))
METRICS = [
    "relative_frobenius",
    "relative_spectral",
    "relative_nuclear",
    "eigenvalue_overlap",
    "subspace_overlap",
    "damped_inverse",
    "damped_inverse_queries",
    "stein",
]


@dataclass(frozen=True)
class Planted:
    """What the synthetic study is to look like."""

    rungs: tuple[str, ...] = CHAIN
    extra: tuple[str, ...] = ()
    problem: str = "digits"
    blocks: tuple[str, ...] = ("0", "2", "4")
    bank: bool = True
    examples: bool = True
    regression: bool = False
    undefined: bool = False
    base_models: bool = False
    queries: int = 12
    size: int = 60
    seed: int = 0


def synthetic(planted: Planted | None = None) -> xr.DataTree:
    planted = planted or Planted()
    rng = np.random.default_rng((planted.seed, 7))
    root = xr.Dataset(
        attrs=provenance(
            problem=planted.problem,
            config={"problem": planted.problem, "masks": 1000, "negative_curvature": "absolute"},
            seeds={"base": 0, "masks": 1},
            parameters=6570,
            examples=1617,
            queries=180,
            notes=["layer 0: factor A has a repeated eigenvalue; its eigenbasis is not unique"],
            timings={"train": 0.6, "chain": 41.2, "bank": 33.0, "scores": 4.1},
            command=f"decompose run {planted.problem} --out out/",
        )
    )
    root.attrs["created_at"] = "2026-01-01T00:00:00+00:00"
    groups = {"/": root, "/spectrum": _spectrum(planted, rng), "/spectral_error": _errors(planted)}
    for block in planted.blocks:
        groups[f"/spectrum/{block}"] = _block_spectrum(planted, rng)
        groups[f"/spectral_error/{block}"] = _errors(planted).drop_vars(["damped_value"])
    if planted.bank:
        groups |= _attribution(planted, rng) | {"/bank": _bank(planted, rng)}
    groups["/shares"] = _shares(planted)
    if planted.bank:
        groups |= _derived(planted, groups["/shares"], rng)
    if planted.examples:
        groups |= _examples(planted, rng)
    return xr.DataTree.from_dict(groups)


def _derived(
    planted: Planted, shares: xr.Dataset, rng: np.random.Generator
) -> dict[str, xr.Dataset]:
    found = derived.orders(shares) | {"/prediction": derived.prediction(METRICS)}
    if derived.is_whole(planted.rungs):
        found |= derived.where(planted.blocks, planted.queries, rng)
        found["/policies"] = derived.policies(DAMPING)
    if planted.base_models:
        found["/base_models"] = derived.base_models(shares["level"])
    return found


def _rungs(planted: Planted) -> list[str]:
    return [*planted.rungs, *planted.extra]


def _interval(estimate: np.ndarray, half: float) -> np.ndarray:
    return np.stack([estimate - half, estimate, estimate + half], axis=-1)


def _spectrum(planted: Planted, rng: np.random.Generator) -> xr.Dataset:
    rungs, size = _rungs(planted), planted.size
    values = np.sort(10.0 ** np.linspace(1, -7, size))[None].repeat(len(rungs), 0)
    values *= 10.0 ** rng.normal(0, 0.1, values.shape)
    if "hessian" in rungs:
        values[rungs.index("hessian"), : size // 4] *= -30
    return xr.Dataset(
        {"eigenvalues": (("rung", "index"), np.sort(values, axis=1))},
        coords={"rung": rungs, "index": np.arange(size)},
    )


def _block_spectrum(planted: Planted, rng: np.random.Generator) -> xr.Dataset:
    rungs, size = _rungs(planted), planted.size // 3
    exact = 10.0 ** np.linspace(-6, 0, size)
    return xr.Dataset(
        {
            "eigenvalues": (("rung", "block_index"), np.tile(exact, (len(rungs), 1))),
            "ekfac_eigenvalues": ("block_index", exact),
            "kfac_eigenvalues": ("block_index", exact * 10 ** rng.normal(0, 0.4, size)),
        },
        coords={"rung": rungs, "block_index": np.arange(size)},
    )


def _errors(planted: Planted) -> xr.Dataset:
    rungs = _rungs(planted)
    ladder = np.linspace(0, 0.8, len(rungs))
    value = np.tile(ladder, (len(METRICS), 1))
    error = np.full_like(value, np.nan)
    error[METRICS.index("stein")] = 0.01
    damped = np.stack([value / (1 + 10 * d) for d in DAMPING], axis=1)
    damped[: METRICS.index("damped_inverse")] = np.nan
    return xr.Dataset(
        {
            "value": (("metric", "rung"), value),
            "value_against_ggn": (("metric", "rung"), np.abs(value - 0.2)),
            "standard_error": (("metric", "rung"), error),
            "damped_value": (("metric", "damping", "rung"), damped),
        },
        coords={"metric": METRICS, "rung": rungs, "damping": DAMPING},
    )


def _attribution(planted: Planted, rng: np.random.Generator) -> dict[str, xr.Dataset]:
    rungs = [*_rungs(planted), *BASELINES]
    damping = DAMPING
    queries = np.arange(planted.queries)
    top = np.array(
        [LDS_AT_BEST.get(r, {"identity": 0.2, "random": 0.0}.get(r, 0.5)) for r in rungs]
    )
    shape = np.exp(
        -((np.log10(damping)[None] + 2 + 0.2 * np.arange(len(rungs))[:, None]) ** 2) / 12
    )
    flat = np.array([r in BASELINES for r in rungs])
    mean = top[:, None] * np.where(flat[:, None], 1.0, shape)
    lds = mean[..., None] + rng.normal(0, 0.1, (*mean.shape, planted.queries))
    agreement = np.stack([mean / top.max(), 0.8 * mean / top.max()])
    best = mean.argmax(1)
    absolute = xr.Dataset(
        {
            "lds": (("rung", "damping", "query"), lds),
            "lds_mean": (("rung", "damping", "ci_bound"), _interval(mean, 0.02)),
            "agreement": (("agreement_metric", "rung", "damping"), agreement),
            "ceiling": ("ci_bound", [0.98, 0.99, 0.995]),
            "reliability": ("ci_bound", [0.97, 0.98, 0.99]),
            "best_damping": ("rung", damping[best]),
            "edge": ("rung", np.isin(best, [0, 12]).astype("int8")),
        },
        coords={
            "rung": rungs,
            "damping": damping,
            "query": queries,
            "ci_bound": list(CI_BOUNDS),
            "agreement_metric": ["spearman", "top10_jaccard"],
        },
    )
    relative = xr.Dataset(
        {
            "lds_mean": (("rung", "setting", "ci_bound"), _interval(mean, 0.02)),
            "damping_value": (("rung", "setting"), np.tile(damping, (len(rungs), 1))),
        },
        coords={"rung": rungs, "setting": damping * 10, "ci_bound": list(CI_BOUNDS)},
    )
    return {"/attribution": absolute, "/attribution/relative": relative}


def _bank(planted: Planted, rng: np.random.Generator) -> xr.Dataset:
    masks, train, queries = 40, 30, planted.queries
    outputs = 1 if planted.regression else 3
    return xr.Dataset(
        {
            "masks": (("mask", "train"), rng.integers(0, 2, (masks, train)).astype("int8")),
            "outputs": (
                ("mask", "repeat", "query", "output"),
                rng.normal(size=(masks, 1, queries, outputs)).astype("float32"),
            ),
        },
        coords={
            "mask": np.arange(masks),
            "repeat": [0],
            "train": np.arange(train),
            "query": np.arange(queries),
            "output": np.arange(outputs),
        },
    )


def _shares(planted: Planted) -> xr.Dataset:
    metrics, protocols = (
        ["frobenius_squared", "damped_inverse_squared", "lds"],
        ["equal", "relative"],
    )
    rungs = [r for r in CHAIN if r in planted.rungs]
    level = np.array([[LDS_AT_BEST[r] for r in rungs]] * 2)
    level[1] = level[1] * 0.98
    drop = np.full((3, 2, 5), np.nan)
    drop[0] = [0.04, 0.2, 0.1, 0.06, -0.01]
    drop[1, :, :4] = [0.01, 0.02, 0.3, 0.4]
    if planted.bank and len(rungs) == len(CHAIN):
        drop[2, :, :4] = -np.diff(level, axis=1)
    if planted.undefined:
        drop[2] *= 0.01
    total = np.where(np.isnan(drop).all(-1), np.nan, np.nansum(drop, axis=-1))
    half = np.array([0.0, 0.0, 0.015])[:, None, None]
    share = drop / np.where(total == 0, np.nan, total)[..., None]
    defined = np.ones((3, 2), "int8")
    defined[2] = int(not planted.undefined and planted.bank and len(rungs) == len(CHAIN))
    share[defined == 0] = np.nan
    share_half = half * np.array([1.0, 1.0, 6.0])[:, None, None]
    degrades = np.where(np.isnan(drop), np.nan, (drop > 0).astype(float))
    data: dict[str, tuple[Sequence[str], np.ndarray]] = {
        "drop": (
            ("metric", "protocol", "step", "ci_bound"),
            np.stack([drop - half, drop, drop + half], axis=-1),
        ),
        "share": (
            ("metric", "protocol", "step", "ci_bound"),
            np.stack([share - share_half, share, share + share_half], axis=-1),
        ),
        "total": (
            ("metric", "protocol", "ci_bound"),
            np.stack([total - half[..., 0], total, total + half[..., 0]], axis=-1),
        ),
        "defined": (("metric", "protocol"), defined),
        "probability_degrades": (("metric", "protocol", "step"), degrades),
    }
    if planted.bank:
        data |= {
            "corrected": (("protocol", "rung", "ci_bound"), _interval(level / 0.99, 0.02)),
            "level": (("protocol", "rung", "ci_bound"), _interval(level, 0.02)),
            "level_damping": (("protocol", "rung"), np.full(level.shape, 0.01)),
            "premise": (("protocol", "ci_bound"), _interval(0.99 - level[:, 0], 0.02)),
        }
    return xr.Dataset(
        data,
        coords={
            "metric": metrics,
            "protocol": protocols,
            "step": STEPS_AND_CROSS,
            "ci_bound": list(CI_BOUNDS),
            "rung": rungs,
        },
    )


def _examples(planted: Planted, rng: np.random.Generator) -> dict[str, xr.Dataset]:
    rungs, train, queries = _rungs(planted), 30, planted.queries
    examples = xr.Dataset(
        {
            "train_inputs": (("train", "feature"), rng.normal(size=(train, 64)).astype("float32")),
            "query_inputs": (
                ("query", "feature"),
                rng.normal(size=(queries, 64)).astype("float32"),
            ),
            "train_targets": ("train", rng.integers(0, 10, train)),
            "query_targets": ("query", rng.integers(0, 10, queries)),
        },
        coords={
            "train": np.arange(train),
            "query": np.arange(queries),
            "feature": np.arange(64),
        },
        attrs={"display": '{"image_shape": [8, 8]}'},
    )
    top = rng.integers(0, train, (len(rungs), queries, 5))
    return {
        "/examples": examples,
        "/top": xr.Dataset(
            {
                "top_train": (("rung", "query", "rank"), top),
                "top_score": (("rung", "query", "rank"), np.sort(rng.random(top.shape))[..., ::-1]),
            },
            coords={"rung": rungs, "query": np.arange(queries), "rank": np.arange(5)},
        ),
    }
