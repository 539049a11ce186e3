"""Which inverse a rung gets: that of a run's inversion at every λ, or of a rule that says λ itself.

An inversion (``curvature.inversion``) says how λ enters the inverse; a rule is one of them with a
strength that is read off the rung alone and needs no retraining:

    layer_mean:c            per layer, λ_l = c tr C_ll / P_l; c = 0.1 is what kronfluence 1.0.1
                            takes for damping_factor=None
    mean:c                  damped, λ = c Σ|μ| / P; c = 0.1
    fixed:λ                 damped; λ = 10⁻⁴, the default of the code published with Hong et al.
                            2025 (arXiv 2509.23437)
    factored:λ              factored; λ = 10⁻⁴
    pseudo_inverse:ε        pseudo-inverse; ε = 10⁻⁴, of a replication of Hong et al.
    truncated:λ:ε           truncated at ε; λ = 10⁻⁴ and ε = 10⁻⁶, of their code

A rule is read like a damping protocol of one setting: every rung has a level under it, with shares
and verdict where all rungs of the chain have one. It chooses nothing by retrained models, so that
what it loses against ``tuned`` is what knowing no better costs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

from decomposition.chain.plan import Plan
from decomposition.checks import check_fields, number, numbered, specifications
from decomposition.curvature.inversion import (
    DAMPED,
    INVERSIONS,
    Factored,
    Inversion,
    PerLayer,
    PseudoInverted,
    Truncated,
    own_inverse,
)
from decomposition.curvature.operator import Curvature, NotAvailableError
from decomposition.errors import DampingError, DecompositionError
from decomposition.scores.scorer import Eigenvalues


@dataclass(frozen=True)
class DampingRule:
    """An inversion with its strength, for use without retraining; its fields are its numbers.

    Raises:
        DecompositionError: a number that is not positive.
    """

    name: ClassVar[str]
    """As it is specified."""
    words: ClassVar[str]
    """As a sentence says it, with its numbers in braces."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        rules = {name: number(0, above=True) for name in asdict(self)}
        check_fields(self, rules, DecompositionError, f"the {{}} of rule {self.name}")

    @property
    def label(self) -> str:
        """In words."""
        numbers = {name: f"{value:g}" for name, value in asdict(self).items()}
        return self.words.format(**numbers).replace("= 1 × ", "= ")

    @property
    def inversion(self) -> Inversion:
        """How the strength enters the inverse."""
        return DAMPED

    @abstractmethod
    def strength(self, rung: Curvature, eigenvalues: Eigenvalues | None) -> float:
        """λ of a rung.

        Raises:
            NotAvailableError: the rung does not tell.
        """


@dataclass(frozen=True)
class LayerMean(DampingRule):
    """λ_l = c · mean eigenvalue of every layer."""

    c: float = 0.1
    name = "layer_mean"
    words = "λ = {c} × each layer's mean eigenvalue"

    @property
    def inversion(self) -> Inversion:
        """Per layer, whose λ is the mean over layers."""
        return PerLayer()

    def strength(self, rung: Curvature, eigenvalues: Eigenvalues | None) -> float:
        """c tr C / P."""
        return self.c * float(rung.trace()) / rung.size


@dataclass(frozen=True)
class Mean(DampingRule):
    """λ = c · Σ|μ| / P."""

    c: float = 0.1
    name = "mean"
    words = "λ = {c} × the mean eigenvalue"

    def strength(self, rung: Curvature, eigenvalues: Eigenvalues | None) -> float:
        """Of the rung's own eigenvalues."""
        if eigenvalues is None:
            raise NotAvailableError("its eigenvalues are not known")
        return self.c * eigenvalues.magnitude / rung.size


@dataclass(frozen=True)
class Fixed(DampingRule):
    """One λ for all rungs of all models."""

    damping: float = 1e-4
    name = "fixed"
    words = "λ = {damping} on every rung"

    def strength(self, rung: Curvature, eigenvalues: Eigenvalues | None) -> float:
        """λ."""
        return self.damping


@dataclass(frozen=True)
class FixedFactored(Fixed):
    """A and S damped in place of their product."""

    name = "factored"
    words = "factored damping with λ = {damping}"

    @property
    def inversion(self) -> Inversion:
        """Of the factors."""
        return Factored()


@dataclass(frozen=True)
class FixedPseudoInverse(DampingRule):
    """1/|μ| above ε, nothing below."""

    threshold: float = 1e-4
    name = "pseudo_inverse"
    words = "the pseudo-inverse above {threshold}"

    @property
    def inversion(self) -> Inversion:
        """Whose λ is ε."""
        return PseudoInverted()

    def strength(self, rung: Curvature, eigenvalues: Eigenvalues | None) -> float:
        """ε."""
        return self.threshold


@dataclass(frozen=True)
class FixedTruncated(Fixed):
    """1/(μ + λ) above ε, nothing below."""

    threshold: float = 1e-6
    name = "truncated"
    words = "λ = {damping}, truncated at {threshold},"

    @property
    def inversion(self) -> Inversion:
        """At ε."""
        return Truncated(self.threshold)


RULES: dict[str, type[DampingRule]] = {
    rule.name: rule
    for rule in (LayerMean, Mean, Fixed, FixedFactored, FixedPseudoInverse, FixedTruncated)
}
"""Name → rule."""


def damping_rules(specification: str) -> dict[str, DampingRule]:
    """Protocol → rule; a protocol is called as it is specified.

    Args:
        specification: rules with their numbers, ``layer_mean,fixed:1e-3``; none if empty.

    Raises:
        DecompositionError: an unknown rule, a number that it does not take, or one twice.
    """
    parts = specifications(specification, "rule")
    return {written: numbered(written, "damping rule", RULES) for written, *_ in parts}


@dataclass(frozen=True)
class RuledRungs:
    """The rungs under one rule."""

    rungs: Mapping[str, Curvature]
    """Those that have this inverse."""
    strengths: Mapping[str, float]
    """λ of those."""
    refused: Mapping[str, str]
    """Rung → why it has none."""


def ruled_rungs(
    rule: DampingRule,
    rungs: Mapping[str, Curvature],
    eigenvalues: Mapping[str, Eigenvalues | None],
    layers: Mapping[str, slice],
    formed: bool,
) -> RuledRungs:
    """Every rung under a rule.

    Args:
        rule: which.
        rungs: name → C.
        eigenvalues: name → what is known of its spectrum.
        layers: name → its parameters.
        formed: whether P × P matrices fit.
    """
    found: dict[str, Curvature] = {}
    strengths: dict[str, float] = {}
    refused: dict[str, str] = {}
    for name, rung in rungs.items():
        try:
            inverted = rule.inversion.of(rung, layers, formed)
            strengths[name] = rule.strength(rung, eigenvalues.get(name))
            found[name] = inverted
        except (NotAvailableError, DampingError) as error:
            refused[name] = str(error)
    return RuledRungs(found, strengths, refused)


def check_inversion(inversion: Inversion, plan: Plan) -> None:
    """Raise DampingError if a rung of the plan has no such inverse.

    Args:
        inversion: of a run.
        plan: the forms of its rungs.
    """
    if inversion.matrices and not plan.dense:
        others = [name for name, kind in INVERSIONS.items() if not kind.matrices]
        raise DampingError(
            f"inversion {inversion} asks for the matrix of hessian, which is "
            f"{plan.way('hessian')} here ({plan.choices['hessian'].reason}): raise --memory, or "
            f"take --inversion {' or '.join(others)}"
        )


def inverted_rungs(
    inversion: Inversion,
    rungs: Mapping[str, Curvature],
    layers: Mapping[str, slice],
    formed: bool,
) -> tuple[dict[str, Curvature], list[str]]:
    """Every rung as a run inverts it, and what to know about those that the inversion leaves alone.

    Those are rungs with an inverse of their own, and those without factors to damp.

    Args:
        inversion: of the run.
        rungs: name → C.
        layers: name → its parameters.
        formed: whether P × P matrices fit.

    Raises:
        DampingError: another rung has no such inverse.
    """
    found: dict[str, Curvature] = {}
    alone: dict[str, list[str]] = {}
    for name, rung in rungs.items():
        try:
            found[name] = inversion.of(rung, layers, formed)
        except (NotAvailableError, DampingError) as error:
            if not (inversion.partial or own_inverse(rung)):
                raise DampingError(
                    f"inversion {inversion} of {name}: {error}; take --inversion damped, or leave "
                    "the rung out"
                ) from None
            found[name] = rung
            alone.setdefault(str(error), []).append(name)
    notes = [
        f"inversion {inversion} does not reach {', '.join(names)}, where λ enters as without it: "
        + reason
        for reason, names in alone.items()
    ]
    return found, notes
