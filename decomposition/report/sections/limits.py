"""Section 8: what this does not show."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from decomposition.names import BASELINES, CHAIN
from decomposition.report.content import Block, Items, Text
from decomposition.report.names import PROTOCOLS, SHARE_METRICS, rung_label
from decomposition.report.result import Result, interval, labels
from decomposition.report.verdict import blame, cases, held_back
from decomposition.report.wording import joined, span
from decomposition.results.schema import group_of


def limits_blocks(result: Result) -> list[Block]:
    """Warnings that came with the result, what it lacks, what no such result shows."""
    blocks: list[Block] = []
    for heading, items in (
        ("Warnings that came with the result:", [str(n) for n in result.json("notes")]),
        ("Found on reading it:", [told for one in _cells(result) for told in _found(one)]),
        ("Not in this result:", _absent(result)),
        ("What no report of this kind shows:", [_scope(result), *_ALWAYS]),
    ):
        if items:
            blocks += [Text(heading), Items(tuple(items))]
    return blocks


def _cells(result: Result) -> Iterable[Result]:
    """Each cell where they are few; many are too many to list."""
    return result.each() if result.few else ()


def _found(one: Result) -> list[str]:
    name = f"{one.name}: " if one.name else ""
    return [name + said for said in (*_edges(one), *_ceiling(one), *_undefined(one))]


_OVER_CELLS = (
    ("/claims", "claims tested over the cells"),
    ("/trends", "slopes with what varies between the cells"),
    ("/protocol_ladder", "the way from the controlled protocol to the paper's"),
)
_ALWAYS = (
    "A share belongs to one damping protocol and one order of steps; both are named beside it.",
    "A small spectral error does not imply good attribution, nor the reverse.",
)


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


def _edges(result: Result) -> list[str]:
    edge = result.array("/attribution", "edge")
    warned = any("edge of the grid" in str(note) for note in result.json("notes"))
    if edge is None or warned:
        return []
    unsolved = held_back(result)
    on_edge = [
        rung_label(r)
        for r in labels(edge, "rung")
        if r not in (*BASELINES, *unsolved) and int(edge.sel(rung=r)) == 1
    ]
    if not on_edge:
        return []
    return [f"The best λ of {joined(on_edge)} lies on an edge of the grid: widen the grid."]


def _ceiling(result: Result) -> list[str]:
    reliability = result.array("/attribution", "reliability")
    if reliability is None:
        return []
    value = interval(reliability)
    if not value.known or value.estimate >= 0.5:
        return []
    return [
        f"Split-half reliability is {span(value)}: the retrained outputs are mostly noise, and "
        "all LDS are low for that reason; buy repeats."
    ]


def _undefined(result: Result) -> list[str]:
    found: dict[str, None] = {}
    for metric, protocol in cases(result):
        b = blame(result, metric, protocol)
        if b is None or b.defined:
            continue
        name, under = SHARE_METRICS.get(metric, metric), PROTOCOLS.get(protocol, protocol)
        if b.known:
            why = f"the total {span(b.total)} is within noise"
            found[f"Shares of the {name} under {under} are undefined: {why}."] = None
        else:
            found[f"Shares of the {name} are undefined: it was not measured."] = None
    return list(found)


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
