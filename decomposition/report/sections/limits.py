"""Section 8: what this does not show."""

from __future__ import annotations

import numpy as np

from decomposition.report.blame import blame, cases
from decomposition.report.content import Block, Items, Section, Text
from decomposition.report.palette import rung_label
from decomposition.report.solved import held_back
from decomposition.report.study import PROTOCOLS, SHARE_METRICS, Study, interval, labels
from decomposition.report.wording import joined, span
from decomposition.results.schema import BASELINES, CHAIN


def limits(study: Study) -> Section:
    """Warnings that came with the result, what it lacks, what no such result shows."""
    blocks: list[Block] = []
    for heading, items in (
        ("Warnings that came with the result:", [str(n) for n in study.json("notes")]),
        ("Found on reading it:", [*_edges(study), *_ceiling(study), *_undefined(study)]),
        ("Not in this result:", _absent(study)),
        ("What no report of this kind shows:", [_scope(study), *_ALWAYS]),
    ):
        if items:
            blocks += [Text(heading), Items(tuple(items))]
    return Section("limits", "Limits: what this does not show", tuple(blocks))


_ALWAYS = (
    "A share belongs to one damping protocol and one order of steps; both are named beside it.",
    "A small spectral error does not imply good attribution, nor the reverse.",
)


def _scope(study: Study) -> str:
    models = study.array("/base_models", "level")
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


def _edges(study: Study) -> list[str]:
    edge = study.array("/attribution", "edge")
    warned = any("edge of the grid" in str(note) for note in study.json("notes"))
    if edge is None or warned:
        return []
    unsolved = held_back(study)
    on_edge = [
        rung_label(r)
        for r in labels(edge, "rung")
        if r not in (*BASELINES, *unsolved) and int(edge.sel(rung=r)) == 1
    ]
    if not on_edge:
        return []
    return [f"The best λ of {joined(on_edge)} lies on an edge of the grid: widen the grid."]


def _ceiling(study: Study) -> list[str]:
    reliability = study.array("/attribution", "reliability")
    if reliability is None:
        return []
    value = interval(reliability)
    if not value.known or value.estimate >= 0.5:
        return []
    return [
        f"Split-half reliability is {span(value)}: the retrained outputs are mostly noise, and "
        "all LDS are low for that reason; buy repeats."
    ]


def _undefined(study: Study) -> list[str]:
    found: dict[str, None] = {}
    for metric, protocol in cases(study):
        b = blame(study, metric, protocol)
        if b is None or b.defined:
            continue
        name, under = SHARE_METRICS.get(metric, metric), PROTOCOLS.get(protocol, protocol)
        if b.known:
            why = f"the total {span(b.total)} is within noise"
            found[f"Shares of the {name} under {under} are undefined: {why}."] = None
        else:
            found[f"Shares of the {name} are undefined: it was not measured."] = None
    return list(found)


def _absent(study: Study) -> list[str]:
    large = study.group("/spectral_density") is not None
    absent = [
        text
        for path, text in (
            ("/spectrum", "eigenvalues one by one" if large else "spectra"),
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
        )
        if study.group(path) is None
    ]
    gone = [rung_label(r) for r in CHAIN if r not in study.rungs]
    if gone:
        absent.append(f"rungs of the chain: {joined(gone)}")
    mean = study.array("/attribution", "lds_mean")
    if mean is not None:
        unknown = np.isnan(mean.sel(ci_bound="estimate").values)
        if unknown.any():
            absent.append(f"{int(unknown.sum())} of {unknown.size} cells of LDS by rung and λ")
    return absent
