"""What this does not show."""

from __future__ import annotations

import numpy as np

from decomposition.names import CHAIN
from decomposition.report.content import Block, Text
from decomposition.report.names import rung_label
from decomposition.report.result import Result
from decomposition.report.wording import joined
from decomposition.results.schema import group_of


def limits_blocks(result: Result) -> list[Block]:
    """What no such result shows, and what this one lacks."""
    blocks: list[Block] = [Text(f"{_scope(result)} {_ALWAYS}")]
    absent = _absent(result)
    if absent:
        blocks.append(Text(f"Not in this result: {'; '.join(absent)}.", kind="about"))
    return blocks


_OVER_CELLS = (
    ("/claims", "claims tested over the cells"),
    ("/trends", "slopes with what varies between the cells"),
    ("/protocol_ladder", "the way from the controlled protocol to the paper's"),
)
_ALWAYS = "A small spectral error does not imply good attribution, nor the reverse."


def _scope(result: Result) -> str:
    if result.many:
        return (
            "These cells alone: the intervals cover the masks, queries and retraining seeds that "
            "were drawn, not architectures, data or problems that are not among them."
        )
    models = result.array("/base_models", "level")
    if models is None:
        return (
            "One problem, at one set of trained parameters: the intervals cover the masks, "
            "queries and retraining seeds that were drawn, not other trained models or problems."
        )
    return (
        f"One problem, {models.sizes['base_model']} trained models: the intervals of levels and "
        "shares cover masks, queries and trained models, not other problems; curves, layers, "
        "bands and queries are those of the first model."
    )


def _absent(result: Result) -> list[str]:
    estimated = result.group("/spectral_density") is not None
    absent = [
        text
        for path, text in (
            ("/spectrum", "eigenvalues one by one" if estimated else "spectra"),
            ("/spectral_error", "spectral errors"),
            ("/attribution", "attribution quality (LDS): no models were retrained"),
            ("/attribution/relative", "LDS under relative damping"),
            ("/attribution/effective_dimension", "LDS under equal effective dimension"),
            ("/bank", "the bank of retrained outputs"),
            ("/shares", "shares of the steps"),
            ("/shares/shapley", "shares over other orders of the steps"),
            ("/shares/mismatch", "what a common damping costs beside the steps"),
            ("/shares/resolution", "what more masks would buy"),
            ("/policies", "a comparison of policies for negative eigenvalues"),
            ("/where/layers", "LDS lost by layer"),
            ("/where/bands", "LDS lost by spectral band"),
            ("/where/queries", "LDS lost by query, with intervals"),
            ("/prediction", "whether spectral error predicts the loss"),
            ("/examples", "examples to show"),
            *(_OVER_CELLS if result.many else ()),
        )
        if result.group(path) is None and not (result.many and not _shared(path))
    ]
    gone = [rung_label(r) for r in CHAIN if r not in result.rungs]
    if gone:
        absent.append(f"rungs of the chain: {joined(gone)}")
    mean = result.array("/attribution", "lds_mean")
    if mean is not None:
        unknown = np.isnan(mean.sel(ci_bound="estimate").values)
        if unknown.any():
            absent.append(f"{int(unknown.sum())} of {unknown.size} cells of LDS by rung and λ")
    return absent


def _shared(path: str) -> bool:
    """Whether many cells can hold a group together."""
    group = group_of(path)
    return group is not None and group.stacked
