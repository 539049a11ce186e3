"""Section 1: the answer in words."""

from __future__ import annotations

from decomposition.report.content import Block, Section, Text
from decomposition.report.orders import survival
from decomposition.report.study import Study, intervals
from decomposition.report.verdict import sentences, spectral_sentence
from decomposition.report.wording import isolated, plural


def answer(study: Study) -> Section:
    """The verdict and what was studied."""
    blocks: list[Block] = [Text(" ".join(sentences(study)), kind="lead")]
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
    bank = f", {plural(masks.sizes['mask'], 'retrained subset')}" if masks is not None else ""
    return (
        f"Problem: {isolated(study.attr('problem'))} ({size}{bank}). Numbers in brackets are "
        f"{intervals(study)} from a paired bootstrap; a number without brackets is exact, a "
        "count, or called an estimate where it stands. LDS is the linear datamodelling score: "
        "how well a rung's influence scores rank what really happens to the queries when models "
        "are retrained on subsets."
    )
