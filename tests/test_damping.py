"""Damping: policies for negative eigenvalues, singular matrices, and the protocols' inverses."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from decomposition.damping import (
    POLICIES,
    NegativeCurvature,
    Truncate,
    as_policy,
    check_damping,
    damping_for_effective_dimension,
    effective_dimension,
    inverse_eigenvalues,
)
from decomposition.errors import DampingError

MU = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0], dtype=torch.float64)
spectra = st.lists(st.floats(-5.0, 5.0), min_size=1, max_size=12).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)
dampings = st.floats(1e-6, 1e3)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("absolute", [2.1, 0.6, 0.1, 1.1, 3.1]),
        ("signed", [-1.9, -0.4, 0.1, 1.1, 3.1]),
        ("clip", [0.1, 0.1, 0.1, 1.1, 3.1]),
        ("shift", [0.1, 1.6, 2.1, 3.1, 5.1]),
    ],
)
def test_policies_by_hand(policy: str, expected: list[float]) -> None:
    np.testing.assert_allclose(inverse_eigenvalues(MU, 0.1, policy), 1 / np.array(expected))
    assert POLICIES[policy].indefinite(MU, 0.1) == (min(expected) < 0)


@given(mu=spectra, damping=dampings)
def test_policies_agree_on_a_positive_semidefinite_spectrum(
    mu: torch.Tensor, damping: float
) -> None:
    found = [p.denominators(mu.abs(), damping) for p in POLICIES.values()]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-12, atol=0)


@given(mu=spectra, damping=dampings)
@pytest.mark.parametrize("policy", ["absolute", "clip", "shift"])
def test_all_but_signed_make_the_inverse_definite(
    policy: str, mu: torch.Tensor, damping: float
) -> None:
    assert not POLICIES[policy].indefinite(mu, damping)


def test_a_policy_of_ones_own() -> None:
    class Square(NegativeCurvature):
        name = "square"

        def denominators(self, mu: torch.Tensor, damping: float) -> torch.Tensor:
            return mu.square() + damping

    own = Square()
    assert as_policy(own) is own
    np.testing.assert_allclose(inverse_eigenvalues(MU, 1.0, own), 1 / (MU.numpy() ** 2 + 1))


def test_an_unknown_policy_is_named() -> None:
    with pytest.raises(DampingError, match="'abs': use one of absolute, signed, clip, shift"):
        as_policy("abs")


@pytest.mark.parametrize("damping", [-1e-9, np.nan, np.inf, -np.inf])
def test_negative_and_undefined_dampings_are_named(damping: float) -> None:
    with pytest.raises(DampingError, match=rf"damping must lie in \[0, inf\), got {damping}"):
        inverse_eigenvalues(MU, damping)


@pytest.mark.parametrize("damping", ["a lot", None])
def test_a_damping_that_is_no_number_is_named(damping: object) -> None:
    with pytest.raises(DampingError, match=r"damping must be a number in \[0, inf\), got"):
        check_damping(damping)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("damping", "policy"), [(0.0, "absolute"), (2.0, "signed"), (0.5, "signed")]
)
def test_a_singular_curvature_is_named(damping: float, policy: str) -> None:
    with pytest.raises(DampingError, match=f"singular at damping={damping:g}"):
        inverse_eigenvalues(MU, damping, policy)


def test_zero_damping_inverts_what_is_regular() -> None:
    mu = torch.tensor([0.5, 2.0], dtype=torch.float64)
    np.testing.assert_allclose(inverse_eigenvalues(mu, 0.0), [2.0, 0.5])


def test_the_advice_for_a_singular_curvature_works() -> None:
    with pytest.raises(DampingError) as caught:
        inverse_eigenvalues(MU, 0.0)
    advised = float(str(caught.value).split("above ")[1])
    assert bool(torch.isfinite(inverse_eigenvalues(MU, 1.01 * advised)).all())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_eigenvalue_that_is_not_finite_is_named(value: float) -> None:
    mu = MU.clone()
    mu[3] = value
    with pytest.raises(DampingError, match="eigenvalue 3 is"):
        inverse_eigenvalues(mu, 0.1)


@given(mu=spectra, damping=dampings, factor=st.floats(1.0, 100.0))
def test_effective_dimension_falls_with_damping(
    mu: torch.Tensor, damping: float, factor: float
) -> None:
    low, high = effective_dimension(mu, factor * damping), effective_dimension(mu, damping)
    assert 0.0 <= low <= high <= len(mu)


@given(mu=spectra, damping=st.floats(1e-3, 1e3))
def test_damping_for_effective_dimension_is_the_inverse(mu: torch.Tensor, damping: float) -> None:
    mu = torch.where(mu.abs() < 1e-6, 0.0, mu)
    assume(bool((mu > 0).any()))
    found = damping_for_effective_dimension(mu, effective_dimension(mu, damping))
    assert found == pytest.approx(damping, rel=1e-6)


def test_effective_dimension_without_damping_counts_positive_eigenvalues() -> None:
    """Of −2, −½, 0, 1, 3 there are two; negative ones play no part at any λ."""
    assert effective_dimension(MU, 0.0) == 2.0
    assert effective_dimension(MU, 1.0) == pytest.approx(1 / 2 + 3 / 4)
    assert effective_dimension(torch.zeros(3, dtype=torch.float64), 0.0) == 0.0


@pytest.mark.parametrize("target", [0.0, -1.0, 2.0, 5.0, np.nan])
def test_effective_dimensions_that_do_not_exist_are_named(target: float) -> None:
    with pytest.raises(DampingError, match=r"must lie in \(0, 2\), got"):
        damping_for_effective_dimension(MU, target)


@given(mu=spectra, damping=st.floats(1e-3, 1e3), copies=st.integers(1, 5))
def test_a_node_counts_as_often_as_it_stands_for(
    mu: torch.Tensor, damping: float, copies: int
) -> None:
    counts = torch.full_like(mu, float(copies))
    found = effective_dimension(mu, damping, counts=counts)
    assert found == pytest.approx(effective_dimension(mu.repeat(copies), damping))


def test_a_zero_spectrum_has_no_effective_dimension() -> None:
    with pytest.raises(DampingError):
        damping_for_effective_dimension(torch.zeros(3, dtype=torch.float64), 1.0)


def test_truncation_leaves_out_what_damping_does_not_lift_above_the_threshold() -> None:
    """1/(μ + λ) where μ + λ > ε, else 0: −2 and −0.5 are left out at λ = 0.1, 0 is not."""
    found = inverse_eigenvalues(MU, 0.1, Truncate())
    np.testing.assert_allclose(found, [0.0, 0.0, 1 / 0.1, 1 / 1.1, 1 / 3.1])
    assert not Truncate().indefinite(MU, 0.1)


def test_truncation_needs_no_damping_to_invert_a_singular_matrix() -> None:
    np.testing.assert_allclose(inverse_eigenvalues(MU, 0.0, Truncate()), [0, 0, 0, 1, 1 / 3])


@pytest.mark.parametrize("threshold", [-1.0, float("nan"), float("inf")])
def test_impossible_thresholds_are_refused(threshold: float) -> None:
    with pytest.raises(DampingError, match="threshold of truncation"):
        Truncate(threshold)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_truncation_hides_no_broken_eigenvalue(bad: float) -> None:
    mu = torch.tensor([1.0, bad], dtype=torch.float64)
    with pytest.raises(DampingError, match="damped eigenvalue 1"):
        inverse_eigenvalues(mu, 0.1, Truncate())
