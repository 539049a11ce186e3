"""Crossed choices: planted tables come back, intervals cover, draws spread as theory says."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import chi2
from torch import nn

from decomposition import Problem, build_chain
from decomposition.chain.rungs import sampled_kfac
from decomposition.scores.bootstrap import Draws
from decomposition.shares.factorial import Drawn, Factor, Factorial, over_draws
from decomposition.shares.lattice import lattice_shares
from decomposition.shares.steps import ShareError

DESIGN = Factorial(
    (
        Factor("sampling", ("exact", "1", "10")),
        Factor("bias", ("together", "apart")),
        Factor("rule", ("tuned", "fixed")),
    )
)
COSTS = {"exact": 0.0, "1": 0.1, "10": 0.02, "together": 0.0, "apart": -0.03, "tuned": 0.0}
COSTS |= {"fixed": 0.25}
TARGET = ("1", "apart", "fixed")


def table(together: float = 0.0) -> np.ndarray:
    """0.6 minus the cost of every level, and of one sample with a fixed damping ``together``."""
    both = [together * ({"1", "fixed"} <= set(cell)) for cell in DESIGN.cells]
    return 0.6 - np.array([sum(map(COSTS.__getitem__, cell)) for cell in DESIGN.cells]) - both


def test_an_additive_table_comes_back() -> None:
    for name, weights in DESIGN.main_effects().items():
        assert weights @ table() == pytest.approx(COSTS[name.split(": ")[1]], abs=1e-12)
    for weights in DESIGN.interactions().values():
        assert weights @ table() == pytest.approx(0.0, abs=1e-12)


def test_what_two_choices_cost_together_is_an_interaction() -> None:
    values = table(together=0.06)
    found = {name: weights @ values for name, weights in DESIGN.interactions().items()}
    assert found.pop("sampling: 1 × rule: fixed") == pytest.approx(0.06)
    np.testing.assert_allclose(list(found.values()), 0.0, atol=1e-12)
    mains = DESIGN.main_effects()
    assert mains["sampling: 1"] @ values == pytest.approx(0.1 + 0.06 / 2)  # at half of the rules


def test_shapley_values_share_the_interaction_evenly() -> None:
    lattice, places = DESIGN.ways(TARGET)
    values = table(together=0.06)[list(places)]
    found = lattice_shares(Draws(values, values[None]), tuple(lattice.taken), lattice)
    expected = {"sampling": 0.1 + 0.03, "bias": -0.03, "rule": 0.25 + 0.03}
    assert dict(zip(found.steps, found.shapley[:, 1], strict=True)) == pytest.approx(expected)
    assert found.total[1] == pytest.approx(table()[0] - table(0.06)[DESIGN.cells.index(TARGET)])
    assert len(found.orders) == 6


def test_ways_leave_alone_what_the_target_does_not_change() -> None:
    lattice, places = DESIGN.ways(("10", "together", "fixed"))
    assert lattice.steps == ("sampling", "rule")
    assert [DESIGN.cells[place][1] for place in places] == ["together"] * 4


def planted(random: np.random.Generator, draws: int, resamples: int) -> Draws:
    """Cells of DESIGN with the noise of masks, and of labels drawn ``draws`` times."""
    truth, cells = table(together=0.06), DESIGN.cells
    of_labels = {name: random.normal(size=draws) for name in ("1", "10")}
    columns = np.concatenate(
        [
            truth[place] + 0.03 * of_labels[cell[0]] if cell[0] in of_labels else truth[[place]]
            for place, cell in enumerate(cells)
        ]
    )
    own = np.concatenate([[place] * len(one.columns) for place, one in enumerate(drawn(draws))])
    common, apart = 0.02, 0.01
    of_masks = common * random.normal() + apart * random.normal(size=len(cells))
    again = common * random.normal(size=(resamples, 1))
    again = again + apart * random.normal(size=(resamples, len(cells)))
    estimate = columns + of_masks[own]
    return over_draws(Draws(estimate, estimate + again[:, own]), drawn(draws), seed=(0,))


def drawn(draws: int) -> list[Drawn]:
    count, found = itertools.count(), []
    for cell in DESIGN.cells:
        many = 1 if cell[0] == "exact" else draws
        columns = tuple(itertools.islice(count, many))
        found.append(Drawn(columns, "" if many == 1 else cell[0]))
    return found


def test_intervals_with_few_draws_cover_what_they_should() -> None:
    weights = {**DESIGN.main_effects(), **DESIGN.interactions()}
    truth, matrix = table(together=0.06), np.stack(list(weights.values()))
    lattice, places = DESIGN.ways(TARGET)
    hits, shares, without = [], [], []
    for study in range(250):
        found = planted(np.random.default_rng(study), draws=5, resamples=400)
        low, _, high = np.moveaxis(found.combine(matrix).interval(), -1, 0)
        hits.append((low <= matrix @ truth) & (matrix @ truth <= high))
        of_masks = 0.01 * np.linalg.norm(matrix, axis=1)  # what is left of them in a contrast
        without.append(abs(matrix @ (found.estimate - truth)) <= 1.96 * of_masks)
        chosen = Draws(found.estimate[list(places)], found.draws[:, list(places)])
        low, _, high = lattice_shares(chosen, tuple(lattice.taken), lattice).shapley[0]
        shares.append(low <= 0.13 <= high)
    assert np.mean(hits, 0).min() >= 0.90
    assert 0.93 <= np.mean(hits) <= 0.97
    assert 0.91 <= np.mean(shares) <= 0.985
    assert np.mean(without, 0)[list(weights).index("sampling: 1")] < 0.8  # draws must count


def test_draws_of_one_source_stay_paired() -> None:
    """What only the labels do cancels in a difference of cells that share them."""
    labels = np.random.default_rng(0).normal(size=5)
    values = np.concatenate([labels, labels + 1.0])
    cells = [Drawn((0, 1, 2, 3, 4), "1"), Drawn((5, 6, 7, 8, 9), "1")]
    found = over_draws(Draws(values, np.tile(values, (300, 1))), cells)
    difference = found.combine(np.array([[-1.0, 1.0]]))
    np.testing.assert_allclose(difference.draws, 1.0, atol=1e-12)
    assert found.draws.std(0).min() > 0.1


@pytest.mark.parametrize("samples", [1, 4])
def test_sampled_factors_of_a_linear_model_spread_as_theory_says(samples: int) -> None:
    """One output and a squared loss: S = E ε² has variance 2 / (N K) of its square, with ε of K
    standard normal labels for each of N examples, and A is exact: so has tr K."""
    n, draws = 40, 60
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    y = torch.randn(n, 1, generator=generator, dtype=torch.float64)
    model = nn.Linear(3, 1).double()
    problem = Problem(model, nn.MSELoss(), (x, y), (x[:4] + 1, y[:4]), trained=True)
    exact = build_chain(problem)["kfac"].trace()
    extra = {f"k{seed}": sampled_kfac(samples, seed) for seed in range(draws)}
    chain = build_chain(problem, extra=extra)
    traces = np.array([float(chain[name].trace()) for name in extra]) / float(exact)
    theory = 2.0 / (n * samples)
    low, high = chi2.ppf([0.001, 0.999], draws - 1) / (draws - 1)
    assert low <= traces.var(ddof=1) / theory <= high
    assert abs(traces.mean() - 1.0) < 4.0 * np.sqrt(theory / draws)
    one = over_draws(Draws(traces, np.tile(traces, (4000, 1))), [Drawn(tuple(range(draws)), "k")])
    assert one.draws.std() == pytest.approx(np.sqrt(theory / draws), rel=0.35)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([Drawn((0,), "1")], "1 draws of 1: .* at least two"),
        ([Drawn((0, 1), "1"), Drawn((2, 3, 4), "1")], "3 draws of 1: .* as many for every cell"),
        ([Drawn((0, 1))], "2 draws of what is not drawn"),
    ],
)
def test_draws_that_do_not_fit_are_refused(cells: list[Drawn], message: str) -> None:
    values = np.arange(5.0)
    with pytest.raises(ShareError, match=message):
        over_draws(Draws(values, values[None]), cells)


@pytest.mark.parametrize(
    "factors",
    [(Factor("a", ("x",)),), (Factor("a", ("x", "x")),), (Factor("a", ("x", "y")),) * 2],
)
def test_factors_that_are_none_are_refused(factors: tuple[Factor, ...]) -> None:
    with pytest.raises(ShareError, match=r"factor a .* a name of its own and at least two levels"):
        Factorial(factors)


def test_a_target_that_is_none_is_refused() -> None:
    with pytest.raises(ShareError, match="no cell 2, apart, fixed"):
        DESIGN.ways(("2", "apart", "fixed"))
    with pytest.raises(ShareError, match="where all ways start"):
        DESIGN.ways(("exact", "together", "tuned"))
