"""Plans: what is refused, and with which words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decomposition.errors import ProblemError
from decomposition.retraining import BankPlan


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alpha", 0.0),
        ("alpha", 1.0),
        ("alpha", -0.5),
        ("alpha", float("nan")),
        ("masks", 0),
        ("masks", 1),
        ("masks", 2.5),
        ("repeats", 0),
        ("seed", -1),
        ("second_order_masks", -1),
        ("randomness", "some"),
    ],
)
def test_a_bad_value_is_named(field: str, value: object) -> None:
    with pytest.raises(ProblemError, match=rf"BankPlan\.{field}.*{value}"):
        BankPlan(**{field: value})  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.floats(0.001, 0.999), st.integers(1, 100))
def test_a_subset_keeps_and_removes_at_least_one(alpha: float, examples: int) -> None:
    plan = BankPlan(alpha=alpha, masks=2)
    kept = round(alpha * examples)
    if 0 < kept < examples:
        assert (plan.subsets(examples).sum(1) == kept).all()
    else:
        with pytest.raises(ProblemError, match=f"{alpha} .* {examples} training examples"):
            plan.subsets(examples)


def test_leaving_one_out() -> None:
    masks = BankPlan(alpha=23 / 24, masks=30).subsets(24)
    assert (masks.sum(1) == 23).all()


@pytest.mark.parametrize(("repeats", "second"), [(1, 5), (2, 0)])
def test_a_second_order_is_trained_only_without_repeats(repeats: int, second: int) -> None:
    assert BankPlan(masks=5, repeats=repeats, second_order_masks=9).second_masks == second
