"""What is measured where matrices are too large to form, each number with its error.

Squared Frobenius errors of the steps: with the dual Gram matrices those from G on are exact,
because G − B, B − E and E − K are orthogonal (‖G − B‖² = ‖G‖² − ‖B‖² and ‖B − E‖² = ‖B‖² − ‖E‖²);
what involves H is estimated with random probes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from decomposition.chain.names import CHAIN, STEPS
from decomposition.chain.plan import Plan
from decomposition.curvature import Curvature
from decomposition.curvature.estimate import Estimate, probes, relative_error
from decomposition.linalg import to_numpy

PROBES = 16
ITEMS = (*STEPS, "cross_term")


@dataclass(frozen=True)
class Errors:
    """Squared Frobenius norms, and errors of the steps, probe by probe."""

    norms: dict[str, Estimate]
    """‖C‖² of every rung."""
    traces: dict[str, Estimate]
    """tr C."""
    samples: Float[np.ndarray, "items probes"]
    """Squared error of ITEMS; all entries of a row are equal where it is exact."""
    relative: dict[str, dict[str, Estimate]]
    """Reference, H or G → rung C of the chain → ‖C − R‖_F / ‖R‖_F."""


def frobenius_errors(rungs: Mapping[str, Curvature], seed: int, count: int = PROBES) -> Errors:
    """Exact where norms are known and differences are orthogonal, else ‖(C − D) z‖²."""
    z = probes(rungs["ggn"].size, count, seed, rungs["ggn"].device)
    images = {name: rungs[name].matvec(z) for name in CHAIN}
    exact = {n for n in CHAIN if not rungs[n].matrix_free}
    norms, traces = {}, {}
    for name in CHAIN:
        if name in exact:
            norms[name] = Estimate(rungs[name].frobenius_norm() ** 2)
            traces[name] = rungs[name].trace()
        else:
            norms[name] = Estimate.mean(to_numpy(images[name].square().sum(0)))
            traces[name] = (
                rungs["hessian"].trace(max(2, count // 2), seed)
                if name == "hessian"
                else rungs["ekfac"].trace()  # tr G = tr B = tr E
            )

    def gap(first: str, second: str) -> np.ndarray:
        return to_numpy((images[first] - images[second]).square().sum(0))

    def known(first: str, second: str) -> np.ndarray:
        return np.full(count, max(0.0, norms[first] - norms[second]))

    residual, rest = images["hessian"] - images["ggn"], images["ggn"] - images["kfac"]
    step = known if set(CHAIN[1:]) <= exact else gap
    samples = {
        "linearisation": gap("hessian", "ggn"),
        "cross_layer": step("ggn", "block_ggn"),
        "eigenbasis": step("block_ggn", "ekfac"),
        "eigenvalues": np.full(count, _between(rungs["ekfac"], rungs["kfac"])),
        "cross_term": to_numpy(2.0 * (residual * rest).sum(0)),
    }

    def from_ggn(name: str) -> np.ndarray:
        """‖G − C‖²."""
        if step is gap:
            return gap("ggn", name)
        last = samples["eigenvalues"] if name == "kfac" else 0.0
        return known("ggn", "ekfac" if name == "kfac" else name) + last

    def from_hessian(other: Tensor, exact_part: np.ndarray) -> np.ndarray:
        """‖H − C‖² = ‖H − G‖² + 2⟨H − G, G − C⟩ + ‖G − C‖²: what is exact is not sampled."""
        mixed = to_numpy(2.0 * (residual * (images["ggn"] - other)).sum(0))
        return samples["linearisation"] + mixed + exact_part

    square = np.full(count, norms["ggn"])
    if step is gap:
        square = to_numpy(images["ggn"].square().sum(0))
    scale = from_hessian(torch.zeros_like(z), square)
    relative = {
        "hessian": {n: relative_error(from_hessian(images[n], from_ggn(n)), scale) for n in CHAIN},
        "ggn": {n: relative_error(from_ggn(n), square) for n in CHAIN[1:]},
    }
    relative["hessian"]["hessian"] = Estimate(0.0)
    return Errors(norms, traces, np.stack([samples[item] for item in ITEMS]), relative)


def _between(ekfac: Curvature, kfac: Curvature) -> float:
    """‖E − K‖² in their common basis."""
    first, second = ekfac.eigenbasis, kfac.eigenbasis
    assert first is not None
    assert second is not None
    return float((first.basis_values() - second.basis_values()).square().sum())


def forms_group(rungs: Mapping[str, Curvature], plan: Plan, errors: Errors) -> xr.Dataset:
    """``/forms``: how each rung was held, what its solves cost, its norm and its trace."""
    records = [rung.record for rung in rungs.values()]
    unknown = Estimate(np.nan, np.nan)
    norms = [errors.norms.get(name, unknown) for name in rungs]
    traces = [errors.traces.get(name, unknown) for name in rungs]
    forms = [plan.choices[name].way if name in plan.choices else "given" for name in rungs]
    return xr.Dataset(
        {
            "form": ("rung", forms),
            "squared_norm": ("rung", norms),
            "squared_norm_error": ("rung", [norm.error for norm in norms]),
            "trace": ("rung", traces),
            "trace_error": ("rung", [trace.error for trace in traces]),
            "products": ("rung", [sum(one.products for one in record) for record in records]),
            "systems": ("rung", [sum(one.columns for one in record) for record in records]),
            "residual": (
                "rung",
                [max((one.residual for one in record), default=0.0) for record in records],
            ),
        },
        {"rung": list(rungs)},
    )
