"""The chain H → GGN → block GGN → EK-FAC → K-FAC: one file per step, and the lattice of orders."""

from decomposition.chain.build import CHAIN, LATTICE, STEPS, build_chain, build_lattice
from decomposition.chain.rungs import (
    EKFAC,
    KFAC,
    BlockGGN,
    FullGGN,
    HessianRung,
    Rung,
    fisher_rungs,
    sampled_block_ggn,
    sampled_ekfac,
    sampled_kfac,
)

__all__ = [
    "CHAIN",
    "EKFAC",
    "KFAC",
    "LATTICE",
    "STEPS",
    "BlockGGN",
    "FullGGN",
    "HessianRung",
    "Rung",
    "build_chain",
    "build_lattice",
    "fisher_rungs",
    "sampled_block_ggn",
    "sampled_ekfac",
    "sampled_kfac",
]
