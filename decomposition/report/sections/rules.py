"""Damping without retraining: what every rule and protocol loses against the tuned damping."""

from __future__ import annotations

import json
from functools import partial

from decomposition.names import capitalised
from decomposition.report.content import Block, Figure, Table, Text
from decomposition.report.figures.differences import plot_regret
from decomposition.report.names import protocol_label, rung_label
from decomposition.report.result import Result, interval, intervals, labels


def rule_blocks(result: Result) -> list[Block]:
    """What each rule costs in words, a figure of all of them, and the numbers behind it."""
    mean = result.known("/regret", "mean")
    if mean is None:
        return []
    data = result.group("/regret")
    assert data is not None
    sentences = json.loads(data.attrs.get("sentences", "{}"))
    over = f", mean over {len(result.cells)} cells" if result.many else ""
    protocols, rungs = labels(mean, "protocol"), labels(mean, "rung")
    rows = tuple(
        (protocol_label(p), *(interval(mean, protocol=p, rung=rung) for rung in rungs))
        for p in protocols
    )
    said = [Text(f"{capitalised(sentence)}.") for sentence in sentences.values()]
    finding = capitalised(next(iter(sentences.values()), "no rule beside the protocols"))
    figure = Figure(
        "regret",
        f"LDS lost against the tuned damping of each rung{over}. {finding}.",
        f"LDS under each rung's tuned λ minus that under another protocol or rule{over}, with "
        f"{intervals(result)}.",
        partial(plot_regret, result.tree, cell=result.cell),
        Table(
            "regret-data",
            f"LDS lost against the tuned damping{over}",
            ("damping", *map(rung_label, rungs)),
            rows,
        ),
    )
    return [*said[:1], figure, *said[1:]]
