"""Shares in the result tree: they sum, in every protocol and order."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from decomposition import run
from decomposition.names import CROSS_TERM
from decomposition.scores.protocols import PROTOCOLS
from decomposition.scores.rules import damping_rules
from tests.tiny import SETTINGS, tiny_problem


@pytest.mark.parametrize("metric", ["frobenius_squared", "damped_inverse_squared", "lds"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_drops_sum_to_the_total(tiny: xr.DataTree, metric: str, protocol: str) -> None:
    shares = tiny["/shares"].to_dataset()
    one = shares.sel(metric=metric, protocol=protocol, ci_bound="estimate")
    np.testing.assert_allclose(one["drop"].sum("step"), one["total"], rtol=1e-9, atol=1e-12)


def test_frobenius_total_is_the_squared_distance_of_the_ends(tiny: xr.DataTree) -> None:
    total = tiny["/shares"]["total"].sel(metric="frobenius_squared", ci_bound="estimate")
    error = tiny["/spectral_error"]["value"].sel(metric="relative_frobenius", rung="kfac")
    scale = np.linalg.norm(tiny["/spectrum"]["eigenvalues"].sel(rung="hessian"))
    np.testing.assert_allclose(total, float(error * scale) ** 2, rtol=1e-9)


def test_lds_has_no_cross_term(tiny: xr.DataTree) -> None:
    assert tiny["/shares"]["drop"].sel(metric="lds", step=CROSS_TERM).isnull().all()


def test_every_order_and_the_shapley_mean_share_out_the_whole(tiny: xr.DataTree) -> None:
    orders = tiny["/shares/orders"]["share_by_order"].sel(metric="lds", ci_bound="estimate")
    mean = tiny["/shares/shapley"]["shapley"].sel(metric="lds", ci_bound="estimate")
    defined = tiny["/shares"]["defined"].sel(metric="lds")
    for protocol in PROTOCOLS:
        if int(defined.sel(protocol=protocol)):
            np.testing.assert_allclose(orders.sel(protocol=protocol).sum("step"), 1.0)
            np.testing.assert_allclose(mean.sel(protocol=protocol).sum("step"), 1.0)
        else:
            assert orders.sel(protocol=protocol).isnull().all()


def test_levels_are_the_mean_of_the_base_models(tiny: xr.DataTree) -> None:
    single = tiny["/base_models"]["level"]
    joint = tiny["/shares"]["level"].sel(ci_bound="estimate")
    np.testing.assert_allclose(single.mean("base_model"), joint, rtol=1e-9)


def test_verdict_names_a_step_or_says_that_it_is_not_resolved(tiny: xr.DataTree) -> None:
    verdicts = json.loads(tiny["/shares"].attrs["verdict"])
    assert set(verdicts) == {*PROTOCOLS, *damping_rules(SETTINGS.rules)}
    for one in verdicts.values():
        assert one["text"].startswith("largest" if one["resolved"] else "not resolved")


def test_a_claim_about_exact_numbers_is_counted_where_there_are_some(tiny: xr.DataTree) -> None:
    counts = tiny["/claims"]["counts"].sel(claim="inverse_error").sum("outcome")
    for rule in damping_rules(SETTINGS.rules):
        assert counts.sel(protocol=rule) == 0
    assert (counts.sel(protocol=list(PROTOCOLS)) == 1).all()


def test_spectral_error_metrics_are_ranked_with_an_interval(tiny: xr.DataTree) -> None:
    rho = tiny["/prediction"]["rho"]
    known = rho.dropna("metric")
    assert len(known["metric"]) >= 6
    assert (known.sel(ci_bound="lower") <= known.sel(ci_bound="upper")).all()
    assert (abs(known) <= 1).all()


def test_several_repeats_tell_what_more_of_them_would_buy() -> None:
    settings = replace(SETTINGS, repeats=2, base_seeds=1, masks=30)
    tree = run(tiny_problem(), settings=settings, progress=False)
    width = tree["/shares/resolution"]["relative_width"]
    assert (width > 0).all()
    assert (width.diff("repeats") <= 1e-12).all()
    assert tree["/attribution"].attrs["ceiling_source"] == "split_half"


def test_no_step_is_to_blame_for_a_total_within_noise(tiny: xr.DataTree) -> None:
    verdicts = json.loads(tiny["/shares"].attrs["verdict"])
    defined = tiny["/shares"]["defined"].sel(metric="lds")
    for protocol, one in verdicts.items():
        assert one["resolved"] <= bool(defined.sel(protocol=protocol))
