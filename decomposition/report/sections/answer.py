"""Section 1: the answer in words."""

from __future__ import annotations

from decomposition.report.content import Block, Section, Text
from decomposition.report.orders import survival
from decomposition.report.solved import held_back_sentences
from decomposition.report.study import Study, intervals
from decomposition.report.verdict import sentences, spectral_sentence
from decomposition.report.wording import isolated, plural

ONE_AT_A_TIME = ("leave_one_out", "pbrf")
"""Targets whose masks are single examples."""


def answer(study: Study) -> Section:
    """The verdict and what was studied."""
    blocks: list[Block] = [Text(" ".join(sentences(study)), kind="lead")]
    blocks += [Text(said, kind="note") for said in held_back_sentences(study)]
    orders = survival(study)
    blocks.append(Text(f"{orders} {spectral_sentence(study)}".strip()))
    blocks.append(Text(_studied(study)))
    if study.json("notes"):
        count = plural(len(study.json("notes")), "warning")
        blocks.append(Text(f"{count} came with this result: see “Limits”.", kind="note"))
    return Section("answer", "The answer", tuple(blocks))


def _studied(study: Study) -> str:
    sizes = [
        plural(int(study.attr(name)), noun)
        for name, noun in (
            ("parameters", "parameter"),
            ("examples", "training example"),
            ("queries", "query"),
        )
        if str(study.attr(name)).isdigit()
    ]
    size = ", ".join(sizes).replace("querys", "queries")
    masks = study.array("/bank", "masks")
    data = study.group("/attribution")
    about = {} if data is None else data.attrs
    bank = ""
    if masks is not None and about.get("target") in ONE_AT_A_TIME:
        bank = f", {plural(masks.sizes['mask'], 'training example')} removed one at a time"
    elif masks is not None:
        bank = f", {plural(masks.sizes['mask'], 'retrained subset')}"
    return (
        f"Problem: {isolated(study.attr('problem'))} ({size}{bank}). Numbers in brackets are "
        f"{intervals(study)} from a paired bootstrap; a number without brackets is exact, a "
        "count, or called an estimate where it stands. "
        f"{_meaning(str(about.get('target', 'loss')), str(about.get('measure', '')))}"
    )


def _meaning(target: str, measure: str) -> str:
    """What the page calls LDS."""
    if target in ("", "loss"):
        return (
            "LDS is the linear datamodelling score: how well a rung's influence scores rank what "
            "really happens to the queries when models are retrained on subsets."
        )
    return f"The target is {target}: what this page calls LDS is here {measure}."
