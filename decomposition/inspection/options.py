"""Choices of a spectral inspection; light to import, for the command line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from decomposition.checks import Rule, check_fields, number, one_of, several, text, whole
from decomposition.device import named_device
from decomposition.errors import DecompositionError
from decomposition.spectrum.large import RULES as ESTIMATION_RULES
from decomposition.spectrum.large import Estimation

RULES: dict[str, Rule] = {
    "rungs": several(text),
    "blocks": several(text),
    "checkpoints": several(whole()),
    "method": one_of("auto", "dense", "estimate"),
    "damping": number(0, above=True),
    **{name: ESTIMATION_RULES[name] for name in ("probes", "steps", "seed")},
    "device": named_device,
}
"""What each field of an Inspection may be."""


@dataclass(frozen=True)
class Inspection:
    """What `decompose spectrum` computes."""

    rungs: tuple[str, ...] = ()
    """hessian, ggn, block_hessian, block_ggn, ekfac_hessian, ekfac, kfac; default the chain."""
    blocks: tuple[str, ...] = ()
    """Layers to treat on their own beside the whole; default all."""
    checkpoints: tuple[int, ...] = ()
    """Epochs at which spectra along training are taken, 0 is the initialisation; default none
    (each costs as much as the rest). With them, rungs that are not formed are left out."""
    method: Literal["auto", "dense", "estimate"] = "auto"
    """dense: form and decompose every matrix. estimate: Lanczos, quadrature with error bars, and
    the dual Gram matrix; eigenvalues only. auto: dense up to 12,000 parameters."""
    damping: float = 1.0
    """λ of the score errors, as a multiple of trace(GGN) / P."""
    probes: int = 8
    """Random vectors of an estimate."""
    steps: int = 80
    """Lanczos steps of each."""
    seed: int = 0
    """Seed of an estimate."""
    device: str = "cpu"
    """Where training and curvature run: cpu, cuda or cuda:N; a result is read as it is."""

    def __post_init__(self) -> None:
        """Check what can be checked before any work."""
        check_fields(self, RULES, DecompositionError, "{}")

    @property
    def plan(self) -> Estimation:
        """The work of an estimate."""
        return Estimation(probes=self.probes, steps=self.steps, seed=self.seed)
