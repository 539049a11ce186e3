"""Dampings that need no retraining: each says from a rung alone how it is to be inverted.

    layer_mean:c            (C_l + λ_l I)⁻¹ on every layer, λ_l = c tr C_ll / P_l; c = 0.1
                            is what kronfluence 1.0.1 takes for damping_factor=None
    mean:c                  (C + λI)⁻¹, λ = c Σ|μ| / P, one λ for the whole rung; c = 0.1
    fixed:λ                 (C + λI)⁻¹; λ = 10⁻⁴, the default of the code published with Hong et
                            al. 2025 (arXiv 2509.23437)
    factored:λ              (A + π√λ)⁻¹ ⊗ (S + √λ/π)⁻¹ of rungs with Kronecker factors, Martens &
                            Grosse 2015 (arXiv 1503.05671, section 6.3); λ = 10⁻⁴
    pseudo_inverse:ε        1/|μ| where |μ| > ε, else 0; ε = 10⁻⁴, of a replication of Hong et al.
    truncated:λ:ε           1/(μ + λ) where μ + λ > ε, else 0; λ = 10⁻⁴ and ε = 10⁻⁶, of their code

A rule is read like a damping protocol of one setting: every rung has a level under it, with shares
and verdict where all rungs of the chain have one. It chooses nothing by retrained models, so that
what it loses against ``tuned`` is what knowing no better costs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import ClassVar

from decomposition.checks import check_fields, number, specifications
from decomposition.curvature.inversion import UnderPolicy, per_layer
from decomposition.curvature.operator import Curvature, NotAvailableError
from decomposition.damping import NegativeCurvature, PseudoInverse, Truncate
from decomposition.errors import DampingError, DecompositionError
from decomposition.scores.scorer import Eigenvalues


@dataclass(frozen=True)
class DampingRule:
    """How a rung is inverted where nothing has been retrained; its fields are its numbers.

    Raises:
        DecompositionError: a number that is not positive.
    """

    name: ClassVar[str]
    """As it is specified."""
    words: ClassVar[str]
    """As a sentence says it, with its numbers in braces."""
    one_damping: ClassVar[bool] = True
    """Whether its strength is one λ for the whole rung."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        rules = {field.name: number(0, above=True) for field in fields(self)}
        check_fields(self, rules, DecompositionError, f"the {{}} of rule {self.name}")

    @property
    def label(self) -> str:
        """In words."""
        numbers = {name: f"{value:g}" for name, value in asdict(self).items()}
        return self.words.format(**numbers).replace("= 1 × ", "= ")

    def inverted(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """The rung with this inverse; by default itself, for whose λ the strength stands.

        Args:
            rung: C.
            layers: name → its parameters.
            formed: whether P × P matrices fit.

        Raises:
            NotAvailableError: there is none.
            DampingError: it would be singular.
        """
        if rung.negative is not None:
            raise NotAvailableError("it has an inverse of its own")
        return rung

    @abstractmethod
    def strength(self, rung: Curvature, eigenvalues: Eigenvalues | None) -> float:
        """What stands in the place of λ.

        Raises:
            NotAvailableError: the rung does not tell.
        """

    def _under(self, rung: Curvature, policy: NegativeCurvature) -> Curvature:
        """The rung under a policy that says which directions are left out."""
        if rung.solver_alone:
            raise NotAvailableError("its solver leaves no direction out")
        return UnderPolicy(rung, policy)


@dataclass(frozen=True)
class LayerMean(DampingRule):
    """λ_l = c · mean eigenvalue of every layer."""

    c: float = 0.1
    name = "layer_mean"
    words = "λ = {c} × each layer's mean eigenvalue"
    one_damping = False

    def inverted(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """With c in place of λ."""
        return per_layer(rung, layers, formed)

    def strength(self, rung: Curvature, eigenvalues: Eigenvalues | None) -> float:
        """c."""
        return self.c


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
class Factored(Fixed):
    """A and S damped in place of their product."""

    name = "factored"
    words = "factored damping with λ = {damping}"

    def inverted(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """Of rungs with factors."""
        return super().inverted(rung, layers, formed).by_factors()


@dataclass(frozen=True)
class Pseudo(DampingRule):
    """1/|μ| above ε, nothing below."""

    threshold: float = 1e-4
    name = "pseudo_inverse"
    words = "the pseudo-inverse above {threshold}"
    one_damping = False

    def inverted(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """Under the policy of that name."""
        return self._under(super().inverted(rung, layers, formed), PseudoInverse(self.threshold))

    def strength(self, rung: Curvature, eigenvalues: Eigenvalues | None) -> float:
        """0: there is no damping."""
        return 0.0


@dataclass(frozen=True)
class Truncated(Fixed):
    """1/(μ + λ) above ε, nothing below."""

    threshold: float = 1e-6
    name = "truncated"
    words = "λ = {damping}, truncated at {threshold},"

    def inverted(self, rung: Curvature, layers: Mapping[str, slice], formed: bool) -> Curvature:
        """Under the policy of that name."""
        return self._under(super().inverted(rung, layers, formed), Truncate(self.threshold))


RULES: dict[str, type[DampingRule]] = {
    rule.name: rule for rule in (LayerMean, Mean, Fixed, Factored, Pseudo, Truncated)
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
    return {written: _rule(written, name, numbers) for written, name, numbers in parts}


def _rule(written: str, name: str, numbers: list[str]) -> DampingRule:
    if name not in RULES:
        raise DecompositionError(
            f"unknown damping rule {name!r}: use {', '.join(RULES)}, separated by commas, with "
            "numbers after colons (layer_mean:0.1)"
        )
    takes = [field.name for field in fields(RULES[name])]
    try:
        given = {takes[i]: float(one) for i, one in enumerate(numbers)}
    except (IndexError, ValueError):
        raise DecompositionError(
            f"{name} does not take {':'.join(numbers)!r} in {written}; it takes "
            f"{' and then '.join(takes)}, numbers after colons"
        ) from None
    return RULES[name](**given)


@dataclass(frozen=True)
class Inverted:
    """The rungs under one rule."""

    rungs: Mapping[str, Curvature]
    """Those that have this inverse."""
    strengths: Mapping[str, float]
    """What stands in the place of λ."""
    refused: Mapping[str, str]
    """Rung → why it has none."""


def inverted_rungs(
    rule: DampingRule,
    rungs: Mapping[str, Curvature],
    eigenvalues: Mapping[str, Eigenvalues | None],
    layers: Mapping[str, slice],
    formed: bool,
) -> Inverted:
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
            inverted = rule.inverted(rung, layers, formed)
            strengths[name] = rule.strength(rung, eigenvalues.get(name))
            found[name] = inverted
        except (NotAvailableError, DampingError) as error:
            refused[name] = str(error)
    return Inverted(found, strengths, refused)
