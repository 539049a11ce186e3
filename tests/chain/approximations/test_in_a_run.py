"""Approximations beside the chain in a whole run: in its tables, figures and plan, in any form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from decomposition import DecompositionError, Settings, run
from decomposition.chain import build_chain
from decomposition.chain.approximations import METHODS, approximations, kpsvd
from decomposition.plan_command import plan_text
from decomposition.report.names import rung_label
from decomposition.report.palette import rung_styles
from tests.chain.approximations.shared import columns
from tests.tiny import tiny_problem

ALL = (
    "diagonal,kfac_trace,kpsvd,low_rank:5,low_rank:5:drop,projected:7,projected_layers:3,datainf,"
    "neumann:30,neumann:30:hessian,neumann:9:ekfac,cg:8,cg:8:hessian,cg:4:ekfac"
)
NAMES = ALL.split(",")
SETTINGS = Settings(
    also=ALL,
    masks=16,
    second_order_masks=8,
    resamples=100,
    damping_low=1e-1,
    damping_high=1e2,
    damping_points=4,
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[xr.DataTree, xr.DataTree, Path]:
    """The result of dense matrices, that beyond them, and the first one's folder."""
    folder, problem = tmp_path_factory.mktemp("also"), tiny_problem()
    dense = run(problem, folder, settings=SETTINGS, progress=False)
    return dense, run(problem, settings=SETTINGS, progress=False, memory=1e-4), folder


def test_every_one_is_scored_at_every_damping(both) -> None:
    for tree in both[:2]:
        curves = tree["attribution"]["lds_mean"].sel(rung=NAMES, ci_bound="estimate")
        assert bool(curves.notnull().all())


def test_scores_are_the_same_in_every_form(both) -> None:
    """Up to the unit of the damping grid, tr G, which is estimated where G is not formed."""
    dense, beyond = (tree["attribution"]["lds"].sel(rung=NAMES).values for tree in both[:2])
    assert np.abs(dense - beyond).max() < 0.05


def test_spectra_are_those_of_matrices_and_no_solver_has_one(both) -> None:
    found = both[0]["spectrum"]["eigenvalues"]["rung"].values
    solvers = {name for name in NAMES if METHODS[name.split(":")[0]].form == "solver"}
    assert set(NAMES) - solvers <= set(found)
    assert not solvers & set(found)


def test_kpsvd_lies_between_kfac_and_the_blocks(both) -> None:
    """‖B − KPSVD‖ ≤ ‖B − K‖, and so from G, from which B − G is orthogonal to both."""
    errors = both[0]["spectral_error"]["value_against_ggn"].sel(metric="relative_frobenius")
    assert float(errors.sel(rung="kpsvd")) <= float(errors.sel(rung="kfac")) * (1 + 1e-9)


def test_they_are_on_the_page_under_their_labels(both) -> None:
    page = (both[2] / "report.html").read_text()
    assert all(rung_label(name) in page for name in ("kpsvd", "low_rank:5", "cg:8:hessian"))


def test_every_method_has_a_label_and_a_style_of_its_own() -> None:
    styles = rung_styles([*METHODS, "cg:20:hessian", "hessian", "ggn", "ekfac", "kfac"])
    assert len({(s.color, s.dash, s.marker) for s in styles.values()}) == len(styles)
    assert all(rung_label(name) for name in METHODS)
    assert rung_label("cg:20:hessian:ekfac") == "CG 20 of H + EK-FAC"


def test_the_plan_has_a_line_for_each() -> None:
    text = plan_text(tiny_problem(), settings=Settings(also=ALL))
    rows = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert set(NAMES) <= set(rows)


def test_a_name_in_also_and_extra_is_refused_before_the_work() -> None:
    with pytest.raises(DecompositionError, match="both in also and in extra"):
        run(tiny_problem(), settings=Settings(also="kpsvd"), extra={"kpsvd": kpsvd()})


def test_settings_refuse_a_method_that_is_none() -> None:
    with pytest.raises(DecompositionError, match="unknown approximation 'kpvsd'"):
        Settings(also="kpvsd")


def test_help_names_every_method() -> None:
    from decomposition import settings

    text = Path(settings.__file__).read_text()
    assert all(f"\n    {name}:" in text for name in METHODS)


def test_the_same_seeds_give_the_same_solutions() -> None:
    problem, extra = tiny_problem(), approximations(ALL)
    one, again = (build_chain(problem, extra) for _ in range(2))
    for name in NAMES:
        found = (chain[name].solve(columns(problem), 1.0, "absolute") for chain in (one, again))
        np.testing.assert_array_equal(*(x.numpy() for x in found))
