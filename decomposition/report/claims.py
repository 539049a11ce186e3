"""The study's claims as tested: a verdict with its effect, under each protocol and in each cell."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace

import xarray as xr

from decomposition.report.interval import Interval
from decomposition.report.names import DAMPED
from decomposition.report.result import Result, interval, labels
from decomposition.report.wording import plural
from decomposition.shares.claims import CLAIMS

UNKNOWN = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Outcome:
    """One of the three ends of a test."""

    value: int
    word: str
    """In the result."""
    said: str = field(compare=False)
    """On the page: what is not found under these definitions contradicts nobody else's."""
    symbol: str
    color: str
    """One of the palette's; blue, grey and vermilion are told apart by every kind of eye."""

    @property
    def css(self) -> str:
        """Its class on the page."""
        return self.word.replace(" ", "-")

    def __str__(self) -> str:
        """Symbol and words."""
        return f"{self.symbol} {self.said}"


SUPPORTED = Outcome(1, "supported", "supported", "✓", "#0072b2")
UNRESOLVED = Outcome(0, "not resolved", "not resolved", "○", "#868c96")
NOT_REPRODUCED = "not reproduced"
AGAINST = {claim.name: claim.against for claim in CLAIMS}
"""Claim → what a verdict against it is called, where an older result does not say."""
CONTRADICTED = Outcome(-1, "contradicted", f"{NOT_REPRODUCED} or reversed", "✗", "#d04a02")
OUTCOMES = (SUPPORTED, UNRESOLVED, CONTRADICTED)


@dataclass(frozen=True)
class Finding:
    """A claim under one protocol: pooled over the cells, and in how many of them."""

    outcome: Outcome | None
    """None where the claim was not tested."""
    effect: Interval
    """Pooled over the cells."""
    counts: dict[str, int]
    """Word of an outcome → number of cells."""
    against: str = NOT_REPRODUCED
    """What a verdict against this claim is called."""

    @property
    def cells(self) -> int:
        """In how many cells it was tested."""
        return sum(self.counts.values())

    @property
    def count(self) -> str:
        """``supported in 5 of 6 cells, not reproduced in 1``."""
        against = self.counts[CONTRADICTED.word]
        text = f"supported in {self.counts[SUPPORTED.word]} of {plural(self.cells, 'cell')}"
        return f"{text}, {self.against} in {against}" if against else text


@dataclass(frozen=True)
class Claim:
    """One claim with what was found."""

    key: str
    text: str
    """The sentence."""
    effect: str
    """What the effect is, and its unit."""
    findings: dict[str, Finding]
    """Protocol → finding."""

    against: str = NOT_REPRODUCED
    """What a verdict against it is called."""

    def said(self, one: Outcome) -> Outcome:
        """An outcome in the words of this claim."""
        return replace(one, said=self.against) if one == CONTRADICTED else one


def claims(result: Result) -> list[Claim]:
    """Every claim of the study, in its order; none where it holds no ``/claims``."""
    data = result.group("/claims")
    if data is None or "claim" not in data.coords:
        return []
    texts, effects, against = (_texts(data, name) for name in ("texts", "effects", "against"))
    found = []
    for key in labels(data["claim"], "claim"):
        word = str(against.get(key, AGAINST.get(key, NOT_REPRODUCED)))
        protocols = labels(data["protocol"], "protocol")
        found.append(
            Claim(
                key,
                str(texts.get(key, key.replace("_", " "))),
                str(effects.get(key, "")),
                {protocol: _finding(data, key, protocol, word) for protocol in protocols},
                word,
            )
        )
    return found


@dataclass(frozen=True)
class ClaimsMap:
    """Verdicts over λ for one chain under one inversion."""

    chain: str
    """exact or paper."""
    rule: str
    """The inversion."""
    axis: str
    """Its dimension of λ: ``multiplier`` in units of the GGN, or ``damping``."""
    data: xr.Dataset
    """verdict(claim, [cell,] axis) and optimum([cell,] rung), of the cells of this inversion."""
    sentences: dict[str, str]
    """Claim → where it holds."""

    @property
    def name(self) -> str:
        """What tells it from the others; "" of the exact chain in a damped result."""
        return ", ".join(
            part
            for part in (
                "" if self.chain == "exact" else f"{self.chain} chain",
                "" if self.rule == DAMPED else self.rule,
            )
            if part
        )


def claims_maps(result: Result, path: str = "/claims/map") -> list[ClaimsMap]:
    """Every map of a group, that of the exact chain first; none where there is no such group."""
    data = result.group(path)
    if data is None:
        return []
    axis = "damping" if path.endswith("absolute") else "multiplier"
    said = _texts(data, "sentences")
    if "chain" not in data.dims:  # an older result
        return [ClaimsMap("exact", DAMPED, axis, data, {k: str(v) for k, v in said.items()})]
    found = []
    for chain in labels(data["chain"], "chain"):
        for rule in labels(data["rule"], "rule"):
            one = data.sel(chain=chain, rule=rule)
            if "cell" in one.dims:
                there = one["p_value"].notnull().any(["claim", axis])
                one = one.isel(cell=there.values.nonzero()[0])
            sentences = said.get(f"{chain}, {rule}", {})
            assert isinstance(sentences, dict)
            found.append(ClaimsMap(chain, rule, axis, one, sentences))
    return found


def outcome(value: float) -> Outcome | None:
    """The outcome that a number stands for; None for one that is not known."""
    return next((o for o in OUTCOMES if o.value == value), None)


def _finding(data: xr.Dataset, key: str, protocol: str, against: str) -> Finding:
    here = data.sel(claim=key, protocol=protocol)
    effect = interval(here["pooled_effect"]) if "pooled_effect" in here else UNKNOWN
    counts = {o.word: _count(here, o) for o in OUTCOMES}
    pooled = outcome(float(here["pooled_verdict"])) if "pooled_verdict" in here else None
    # an integer has no NaN: a claim that was tested in no cell has no verdict
    tested = effect.known or sum(counts.values()) > 0
    if pooled == CONTRADICTED:
        pooled = replace(CONTRADICTED, said=against)
    return Finding(pooled if tested else None, effect, counts, against)


def _count(here: xr.Dataset, one: Outcome) -> int:
    if "counts" in here and one.word in labels(here["counts"], "outcome"):
        found = float(here["counts"].sel(outcome=one.word))
        return int(found) if math.isfinite(found) else 0
    return int((here["verdict"] == one.value).sum()) if "verdict" in here else 0


def _texts(data: xr.Dataset, name: str) -> dict[str, object]:
    """JSON of the claim coordinate's attribute, or of the group's."""
    found = data["claim"].attrs.get(name, data.attrs.get(name, "{}"))
    return dict(json.loads(found))
