"""Choices of an implementation: the right rung in every cell, and costs as planted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from decomposition import KFAC, Problem, build_chain
from decomposition.names import CHAIN
from decomposition.scores.bootstrap import Draws
from tests import cases

sys.path.insert(0, str(Path(__file__).parents[2] / "analyses"))
import choices
from choices import FACTORIALS, OWN_MEAN, FactoredLayerMean, Place, Table, places, rungs

LOST = {"1 sample": 0.05, "apart": -0.01, "factored": 0.02, "fixed 1e-4": 0.2}


@pytest.fixture(scope="module")
def problem() -> Problem:
    return cases.tanh()


def test_every_cell_has_a_rung_of_its_own_for_every_draw() -> None:
    made = rungs(3)
    for structure, factorial in FACTORIALS.items():
        each = [place for cell in factorial.cells for place in places(structure, cell, 3)]
        assert len(set(each)) == len(each)
        assert {place.rung for place in each} <= made.keys()
    draws = [made[f"kfac, {kind}, apart, factored, 2"] for kind in ("1 sample", "10 samples")]
    assert draws[0] != made["kfac, 1 sample, apart, factored, 1"]
    one, ten = ({f.seed for f in choices.fishers(kind, 3)} for kind in ("1 sample", "10 samples"))
    assert len(one) == len(ten) == 3
    assert not one & ten  # ten samples share no label with one


def test_factors_damped_by_their_layers_mean(problem: Problem) -> None:
    """(A + π√λ)⁻¹ ⊗ (S + √λ/π)⁻¹, λ = c tr(A ⊗ S) / P_l, from the factors' eigenvalues alone."""
    c, v = 0.1, torch.ones(problem.num_parameters, dtype=torch.float64)
    chain = build_chain(problem, extra={"own": FactoredLayerMean(KFAC(factored_damping=True))})
    found, start = chain["own"].solve(v, damping=c), 0
    for block in chain["kfac"].diagonal_blocks().values():
        a, s = block.basis.inputs.values, block.basis.outputs.values
        damping = c * float(torch.outer(s, a).mean())
        pi = (float(a.mean()) / float(s.mean())) ** 0.5
        inverse = torch.outer(1 / (s + damping**0.5 / pi), 1 / (a + damping**0.5 * pi)).flatten()
        part = v[start : start + block.size, None]
        expected = block.from_basis(inverse[:, None] * block.to_basis(part))[:, 0]
        torch.testing.assert_close(found[start : start + block.size], expected)
        start += block.size


def planted() -> Table:
    """LDS 0.6 minus what a cell's choices lose, the draws of one sample 0.01 apart."""
    found = {Place(rung, "tuned"): 0.6 - 0.01 * i for i, rung in enumerate(CHAIN)}
    for structure, factorial in FACTORIALS.items():
        for cell in factorial.cells:
            for draw, place in enumerate(places(structure, cell, 3)):
                found[place] = 0.56 - sum(LOST.get(level, 0.0) for level in cell)
                found[place] += 0.01 * (draw - 1) * (cell[0] == "1 sample")
    values = np.array(list(found.values()))
    draws = Draws(values, np.tile(values, (500, 1)))
    return Table({place: i for i, place in enumerate(found)}, draws)


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    both = [choices.rows_of(measure, planted(), 3, 0.95) for measure in ("lds", "residual")]
    return pd.DataFrame([row for part in both for row in part])


def test_planted_costs_come_back(rows: pd.DataFrame) -> None:
    lds = rows[rows["measure"] == "lds"]
    assert lds[lds["kind"] == "step"]["cost"].tolist() == pytest.approx([0.01] * 4)
    for kind in ("main effect", "alone"):
        some = lds[(lds["kind"] == kind) & (lds["rung"] == "kfac")].set_index("name")
        assert some["cost"]["sampling: 1 sample"] == pytest.approx(0.05)
        assert some["cost"]["rule: fixed 1e-4"] == pytest.approx(0.2)
        assert some["cost"]["rule: layer mean 0.1"] == pytest.approx(0.0)
        assert some["lower"]["sampling: 1 sample"] < 0.045  # the draws are 0.01 apart
        assert some["upper"]["bias: apart"] == pytest.approx(-0.01)
    shares = lds[lds["kind"] == "Shapley value"].set_index(["rung", "name"])["cost"]
    assert shares["kfac", "damping"] == pytest.approx(0.02)
    assert shares["kfac", "together"] == pytest.approx(0.26)
    assert shares["ekfac", "together"] == pytest.approx(0.24)


def test_the_table_and_the_figure_show_them(rows: pd.DataFrame) -> None:
    text = choices.markdown(rows)
    assert "| rule: fixed 1e-4 | +0.200 [+0.200, +0.200] | +0.20 [+0.20, +0.20] |" in text
    assert "| bias: apart | −0.010 [" in text
    ax = choices.figure(rows)
    shown = [label.get_text() for label in ax.get_yticklabels()]
    assert shown[3:5] == ["step: eigenvalues", "sampling: 1 sample"]
    assert OWN_MEAN not in text
