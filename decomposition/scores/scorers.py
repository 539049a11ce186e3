"""Which scorer each rung gets: the cheapest that it and the source of gradients allow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

from decomposition.curvature.operator import Curvature
from decomposition.scores.gradients import Gradients, GradientSource, random_scores
from decomposition.scores.krylov import KrylovScorer
from decomposition.scores.row_space import RowImages, row_scorer
from decomposition.scores.scorer import Eigenvalues, FixedScorer, Scorer
from decomposition.scores.solving import SOLUTION_NUMBERS, SolvingScorer
from decomposition.scores.spectral import RotatedGradients, Rotations, SpectralScorer


def baselines(source: GradientSource, size: int, seed: int) -> dict[str, Scorer]:
    """``identity``, g_q · g_i / N, and ``random``, standard normal scores of P = ``size``."""
    parts = source.query_parts(max(1, SOLUTION_NUMBERS // size))
    flat = torch.cat([source.along(part) for part in parts]) / source.examples
    random = random_scores(len(flat), source.examples, seed)
    return {"identity": FixedScorer(flat), "random": FixedScorer(random)}


def scorers_of(
    rungs: Mapping[str, Curvature],
    gradients: GradientSource,
    eigenvalues: Mapping[str, Eigenvalues | None] = MappingProxyType({}),
    rotated: Rotations | None = None,
    images: RowImages | None = None,
    masks: int = 0,
) -> dict[str, Scorer]:
    """The cheapest scorer that each rung and the source of gradients allow.

    Gradients are rotated once for all rungs of one basis, if they fit; of a rung in dual form it is
    kept what its rows see of them; one that is known by its products has its queries in Krylov
    spaces; others are solved at every damping.

    Args:
        rungs: name → C.
        gradients: of queries and training examples.
        eigenvalues: name → what is known of the spectrum of a rung that is solved; default its
            own, where it has an eigenbasis.
        rotated: gradients in bases where they have been rotated before; new ones are added.
        images: of gradients under rows that have been applied before; new ones are added.
        masks: subsets whose effects will be asked for; 0 if that is not known.
    """
    rotated = {} if rotated is None else rotated
    images = images or RowImages(gradients)
    found: dict[str, Scorer] = {}
    first: dict[int, str] = {}
    for name, rung in rungs.items():
        same = first.setdefault(id(rung), name)
        if same != name:  # block H of a ReLU network is block G
            found[name] = found[same]
            continue
        basis, solver = rung.eigenbasis, rung.by_spaces
        if basis is not None and basis.basis_key() not in rotated:
            fitting = RotatedGradients.fitting(basis, gradients, masks)
            if fitting is not None:
                rotated[basis.basis_key()] = fitting
        if basis is not None and basis.basis_key() in rotated:
            found[name] = SpectralScorer(basis.spectrum(), rotated[basis.basis_key()])
        elif solver is not None:
            found[name] = KrylovScorer(rung, solver, gradients, eigenvalues.get(name))
        else:
            told = eigenvalues.get(name)
            by_rows = row_scorer(rung, images, gradients, told)
            found[name] = by_rows or SolvingScorer(rung, gradients, told)
    return found


def scorer(curvature: Curvature, gradients: Gradients) -> Scorer:
    """The scorer of a single rung."""
    return scorers_of({"": curvature}, gradients)[""]
