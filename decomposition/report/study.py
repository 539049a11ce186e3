"""A result as the report reads it: what is there, in order, and what is missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import xarray as xr

from decomposition.report.interval import Interval
from decomposition.report.palette import RungStyle, rung_styles
from decomposition.results.schema import BASELINES, CHAIN, CI_BOUNDS

STEP_LABELS = {
    "linearisation": "linearisation",
    "cross_layer": "cross-layer",
    "eigenbasis": "eigenbasis",
    "eigenvalues": "eigenvalues",
    "cross_term": "cross term",
}
STEP_MEANINGS = {
    "linearisation": "drop the model's second derivatives",
    "cross_layer": "drop the coupling between layers",
    "eigenbasis": "force the Kronecker eigenbasis",
    "eigenvalues": "take product eigenvalues",
    "cross_term": "2⟨H−G, G−K⟩, which no step owns",
}
SHARE_METRICS = {
    "lds": "LDS",
    "frobenius_squared": "squared Frobenius error",
    "damped_inverse_squared": "squared damped-inverse error",
}
METRIC_LABELS = {
    "relative_frobenius": "Frobenius (relative)",
    "relative_spectral": "spectral norm (relative)",
    "relative_nuclear": "nuclear norm (relative)",
    "eigenvalue_overlap": "eigenvalue overlap (1 is equal)",
    "subspace_overlap": "subspace overlap (1 is equal)",
    "damped_inverse": "damped inverse (relative)",
    "damped_inverse_queries": "damped inverse on query gradients (relative)",
    "stein": "Stein divergence",
}
PROTOCOLS = {
    "equal": "equal λ",
    "relative": "relative λ",
    "effective_dimension": "equal effective dimension",
    "tuned": "tuned λ",
}
POLICIES = {
    "absolute": "absolute: |μ|",
    "signed": "signed: μ as it is",
    "clip": "clip: max(μ, 0)",
    "shift": "shift: μ − μ_min",
}


@dataclass(frozen=True)
class Study:
    """Access to a result tree by group, with None for what it does not hold."""

    tree: xr.DataTree

    def group(self, path: str) -> xr.Dataset | None:
        """The data set at ``path``, or None."""
        node = self._node(path)
        return node.to_dataset(inherit=True) if node is not None and node.data_vars else None

    def array(self, path: str, name: str) -> xr.DataArray | None:
        """The variable ``name`` of the group at ``path``, or None."""
        data = self.group(path)
        return data[name] if data is not None and name in data else None

    def children(self, path: str) -> dict[str, xr.Dataset]:
        """Name → data set of the groups below ``path``."""
        node = self._node(path)
        if node is None:
            return {}
        return {
            name: child.to_dataset(inherit=True)
            for name, child in node.children.items()
            if child.data_vars
        }

    def attr(self, name: str) -> Any:
        """An attribute of the root; "" if absent."""
        return self.tree.attrs.get(name, "")

    def json(self, name: str) -> Any:
        """An attribute of the root that holds JSON, decoded; {} if absent."""
        return json.loads(self.tree.attrs.get(name, "{}"))

    @property
    def rungs(self) -> list[str]:
        """Every rung of the result: the chain first, then others as met, the baselines last."""
        seen: dict[str, None] = {}
        for path in ("/spectrum", "/spectral_error", "/attribution", "/shares"):
            data = self.group(path)
            if data is not None and "rung" in data.coords:
                seen |= dict.fromkeys(map(str, data["rung"].values.tolist()))
        others = [r for r in seen if r not in CHAIN and r not in BASELINES]
        ends = [[r for r in group if r in seen] for group in (CHAIN, BASELINES)]
        return [*ends[0], *others, *ends[1]]

    @property
    def styles(self) -> dict[str, RungStyle]:
        """Rung → style, the same for the whole report."""
        return rung_styles(self.rungs)

    def _node(self, path: str) -> xr.DataTree | None:
        node = self.tree
        for part in path.strip("/").split("/"):
            if part not in node.children:
                return None
            node = node.children[part]
        return node


def interval(array: xr.DataArray, **where: object) -> Interval:
    """The interval at a place of an array with a ``ci_bound`` dimension.

    NaN bounds of a known estimate stay NaN: an interval that was not computed is not zero.
    """
    # a page asks for thousands of these, and sel() is slow
    indexes = array.indexes
    place = [
        indexes[name].get_loc(where[str(name)]) if name in where else slice(None)
        for name in array.dims
    ]
    bounds = array.values[tuple(place)]
    if bounds.shape != (len(CI_BOUNDS),):
        raise ValueError(f"an interval is a place of every dimension but ci_bound, got {where}")
    return Interval(*map(float, bounds))


def intervals(study: Study) -> str:
    """ "95% intervals", by the level that the result records, or "intervals"."""
    level = study.attr("ci_level")
    return f"{100 * float(level):g}% intervals" if level != "" else "intervals"


def labels(array: xr.DataArray, dim: str) -> list[str]:
    """The coordinate of ``dim`` as strings."""
    return [str(value) for value in array[dim].values.tolist()]
