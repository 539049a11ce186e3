"""The chain H → GGN → block GGN → EK-FAC → K-FAC: one file per step, and the lattice of orders."""

from decomposition.chain.build import CHAIN, LATTICE, STEPS, build_chain, build_lattice

__all__ = ["CHAIN", "LATTICE", "STEPS", "build_chain", "build_lattice"]
