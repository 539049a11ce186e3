"""Every kind of vector and damping gets the right number, or words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from decomposition import build_chain
from decomposition.curvature import (
    BlockDiagonal,
    Curvature,
    DenseCurvature,
    EigenpairCurvature,
    ScaledIdentity,
    SolveCurvature,
    UnderPolicy,
)
from decomposition.curvature.dual import dual_rungs
from decomposition.curvature.low_rank import leading_eigenpairs
from decomposition.curvature.matrix_free import MatrixFreeCurvature
from decomposition.curvature.products import hessian_product
from decomposition.damping import POLICIES
from decomposition.errors import DampingError, DecompositionError
from tests import cases

DAMPING = 0.1


def forms() -> Mapping[str, Curvature]:
    """Every form that a curvature can take, of one problem."""
    problem = cases.one_example()
    chain = build_chain(problem)
    dual, blocks = dual_rungs(problem)
    ggn = chain["ggn"]
    values, vectors = ggn.decomposition()  # type: ignore[attr-defined]
    return {
        **chain,
        "dual": dual,
        "blockwise": blocks,
        "matrix-free": MatrixFreeCurvature(ggn, definite=True),
        "leading": leading_eigenpairs(ggn, 2),
        "eigenpairs": EigenpairCurvature(values[-3:], vectors[:, -3:], 0.5),
        "identity": ScaledIdentity(problem.num_parameters, 2.0),
        "solver": SolveCurvature(ggn.size, ggn.solve, ggn.matvec),
        "policy": UnderPolicy(chain["hessian"], "clip"),
    }


FORMS = forms()
SIZE = FORMS["ggn"].size


def numbers(seed: int = 0, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape or (SIZE,)).astype(np.float64)


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> Curvature:
    return FORMS[request.param]


EQUAL: dict[str, Callable[[np.ndarray], object]] = {
    "float32 tensor": lambda v: torch.tensor(v, dtype=torch.float32),
    "integer tensor": lambda v: torch.tensor(v).long(),
    "float64 array": lambda v: v,
    "read-only array": lambda v: np.broadcast_to(v, v.shape),
    "big-endian array": lambda v: v.astype(">f8"),
    "reversed array": lambda v: v[::-1].copy()[::-1],
    "long doubles": lambda v: v.astype(np.longdouble),
    "int8 array": lambda v: v.astype(np.int8),
    "list": lambda v: v.tolist(),
    "with a gradient": lambda v: torch.tensor(v, requires_grad=True),
}


@pytest.mark.parametrize("kind", list(EQUAL))
def test_every_array_of_the_same_numbers_has_the_same_answer(form: Curvature, kind: str) -> None:
    v = numbers()
    given_so = EQUAL[kind](v)
    for apply in (form.matvec, lambda u: form.solve(u, DAMPING), lambda u: form @ u):
        found, expected = apply(given_so), apply(torch.tensor(v))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert found.dtype == form.dtype == torch.float64
        assert not found.requires_grad


def test_a_list_is_not_rounded_to_float32() -> None:
    assert ScaledIdentity(2, 1.0).matvec([0.1, 0.2]).tolist() == [0.1, 0.2]  # type: ignore


REFUSED: dict[str, object] = {
    "complex array": numbers() + 1j,
    "complex tensor": torch.ones(SIZE, dtype=torch.complex128),
    "None": None,
    "text": "ones",
    "texts": ["1.0"] * SIZE,
    "dates": np.zeros(SIZE, "datetime64[s]"),
    "objects": np.full(SIZE, Fraction(1)),
    "ragged": [[1.0], [1.0, 2.0]],
    "a mapping": {"v": 1},
    "a number": 1.0,
    "sparse": torch.eye(SIZE).to_sparse(),
    "meta": torch.ones(SIZE, device="meta"),
    "too short": np.ones(SIZE - 1),
    "too many axes": np.ones((SIZE, 1, 1)),
    "NaN": np.where(np.arange(SIZE) == 3, np.nan, 1.0),
    "infinity": torch.full((SIZE, 2), -torch.inf),
    "a masked entry": np.ma.masked_equal(np.arange(SIZE), 3),
    "long double beyond float64": np.full(SIZE, np.longdouble("1e4000")),
}


@pytest.mark.parametrize("kind", list(REFUSED))
def test_what_is_no_finite_real_vector_is_refused(form: Curvature, kind: str) -> None:
    words = r"dense array of real numbers, got|has shape \(|holds NaN or infinity: .* in row"
    for apply in (form.matvec, lambda u: form.solve(u, DAMPING), lambda u: form @ u):
        with pytest.raises(DecompositionError, match=words):
            apply(REFUSED[kind])


def test_no_columns_have_no_columns_of_solutions(form: Curvature) -> None:
    empty = torch.zeros(SIZE, 0)
    assert form.solve(empty, DAMPING).shape == form.matvec(empty).shape == (SIZE, 0)


@pytest.mark.parametrize(
    "damping", [None, "0.1", True, np.True_, 0.1 + 0j, np.nan, -1.0, np.inf, 10**400, [0.1]]
)
def test_what_is_no_damping_is_refused(form: Curvature, damping: object) -> None:
    with pytest.raises(DampingError, match="damping must"):
        form.solve(numbers(), damping)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "damping", [1, Fraction(1), np.float32(1), np.int64(1), np.array(1.0), torch.tensor(1.0)]
)
def test_every_number_is_a_damping(form: Curvature, damping: float) -> None:
    found, expected = form.solve(numbers(), damping), form.solve(numbers(), 1.0)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("policy", [None, 3, ["clip"], "abs"])
def test_what_is_no_policy_is_refused(form: Curvature, policy: object) -> None:
    with pytest.raises(DampingError, match=r"unknown policy .* use one of absolute"):
        form.solve(numbers(), DAMPING, policy)  # type: ignore[arg-type]


def test_a_result_too_large_for_float64_is_refused() -> None:
    with pytest.raises(DecompositionError, match="too large for float64"):
        ScaledIdentity(2, 1e200).matvec(np.full(2, 1e200))


@given(
    v=arrays(np.float64, (4, 2), elements=st.floats(allow_subnormal=False, width=64)),
    mu=arrays(np.float64, 4, elements=st.floats(-10, 10)),
    damping=st.floats(0, 10),
)
@settings(max_examples=60)
def test_solutions_solve_the_system_or_nothing_is_said_to(
    v: np.ndarray, mu: np.ndarray, damping: float
) -> None:
    """(C + λI) x = v to working precision, or an error of ours; never zeros or NaN in silence."""
    q, _ = np.linalg.qr(np.vander(np.arange(1.0, 5.0)))
    c = DenseCurvature(torch.tensor((q * mu) @ q.T / 2 + ((q * mu) @ q.T).T / 2))
    try:
        x = c.solve(v, damping).numpy()
    except DecompositionError:
        return
    assert np.isfinite(x).all()
    a = c.dense().numpy() + damping * np.eye(4)
    if max(np.abs(x).max(), np.abs(v).max()) < 1e300:
        error = np.abs(a @ x - v).max()
        assert error <= 1e-12 * (np.abs(a).max() * np.abs(x).max() + np.abs(v).max())


def indefinite() -> Curvature:
    return DenseCurvature(torch.diag(torch.tensor([-2.0, -0.5, 1.0, 3.0], dtype=torch.float64)))


def test_solve_inverts_c_plus_damping_as_its_name_says() -> None:
    """Literally, negative eigenvalues included; other policies by name."""
    c, v = indefinite(), torch.ones(4)
    expected = 1 / (np.array([-2.0, -0.5, 1.0, 3.0]) + 0.1)
    np.testing.assert_allclose(c.solve(v, 0.1), expected)
    together = c.solutions(v[:, None].double(), [0.1, 1.0])
    np.testing.assert_allclose(together.x[0, :, 0], expected)
    np.testing.assert_allclose(
        c.solve(v, 0.1, negative="absolute"), 1 / np.array([2.1, 0.6, 1.1, 3.1])
    )


def test_the_hessian_of_a_model_is_inverted_literally() -> None:
    problem = cases.gelu()
    hessian = build_chain(problem)["hessian"]
    dense, v = hessian.dense(), torch.ones(problem.num_parameters, dtype=torch.float64)
    damping = 0.05 * float(dense.diagonal().abs().max())
    a = dense + damping * torch.eye(len(dense), dtype=torch.float64)
    assert float(torch.linalg.eigvalsh(a)[0]) < 0
    exact = torch.linalg.solve(a, v)
    iterated = MatrixFreeCurvature(hessian_product(problem)).solve(v, damping)
    torch.testing.assert_close(hessian.solve(v, damping), exact, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(iterated, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("damping", [0.5, 2.0])
def test_every_way_out_of_a_singular_matrix_works(damping: float) -> None:
    c, v = indefinite(), torch.ones(4)
    with pytest.raises(DampingError) as caught:
        c.solve(v, damping)
    said = str(caught.value)
    assert f"singular at damping={damping:g}: its eigenvalue {-damping:g} " in said
    above = float(said.split("use a damping above ")[1].split(" ")[0])
    assert bool((c.solve(v, above) > 0).all())
    assert "negative='absolute'" in said
    assert bool((c.solve(v, damping, negative="absolute") > 0).all())


@pytest.mark.parametrize("policy", list(POLICIES))
def test_a_direction_without_curvature_needs_damping(policy: str) -> None:
    c = DenseCurvature(torch.diag(torch.tensor([0.0, 1.0], dtype=torch.float64)))
    with pytest.raises(DampingError, match=r"its eigenvalue 0 .* use a damping above") as caught:
        c.solve(torch.ones(2), 0.0, policy)
    above = float(str(caught.value).split("above ")[1])
    assert bool(c.solve(torch.ones(2), above, policy).isfinite().all())


BAD_PAIRS = {
    "remainder of text": ((torch.ones(1), torch.eye(3)[:, :1], "0"), "remainder must be a number"),
    "remainder NaN": ((torch.ones(1), torch.eye(3)[:, :1], np.nan), "remainder must lie in"),
    "no values": ((None, torch.eye(3)), "values must be a dense array of real numbers, got None"),
    "no vectors": ((torch.ones(1), None), "vectors must be a dense array"),
    "complex vectors": ((torch.ones(3), torch.eye(3) * 1j), "vectors must be a dense array"),
    "other shapes": ((torch.ones(2), torch.eye(3)), r"got \(2,\) and \(3, 3\)"),
    "not orthogonal": ((torch.ones(2), torch.ones(3, 2)), "not orthonormal"),
    "more than P": ((torch.ones(4), torch.eye(3, 4)), "not orthonormal"),
    "no parameters": ((torch.ones(0), torch.ones(0, 0)), r"got \(0,\) and \(0, 0\)"),
}


@pytest.mark.parametrize("kind", list(BAD_PAIRS))
def test_eigenpairs_that_are_none_are_named(kind: str) -> None:
    arguments, words = BAD_PAIRS[kind]
    with pytest.raises(DecompositionError, match=words):
        EigenpairCurvature(*arguments)  # type: ignore[arg-type]


BAD_RESULTS = {
    "None": (lambda v, damping: None, "what solve returned must be a dense array"),
    "complex": (lambda v, damping: v * 1j, "what solve returned must be a dense array"),
    "a shape": (lambda v, damping: v[:, 0], "solve returned shape"),
    "NaN": (lambda v, damping: v * np.nan, "solve returned a non-finite value: nan in row 0"),
}


@pytest.mark.parametrize("kind", list(BAD_RESULTS))
def test_a_solver_that_returns_no_solution_is_named(kind: str) -> None:
    solve, words = BAD_RESULTS[kind]
    with pytest.raises(DecompositionError, match=words):
        SolveCurvature(3, solve).solve(torch.ones(3), 0.1)  # type: ignore[arg-type]


def test_a_solver_may_answer_in_another_precision_and_work_in_place() -> None:
    v = torch.ones(3, dtype=torch.float64)
    found = SolveCurvature(3, lambda u, damping: u.mul_(2).float().numpy()).solve(v, 0.1)  # type: ignore
    assert found.dtype == torch.float64
    assert found.tolist() == [2.0, 2.0, 2.0]
    assert v.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("size", [None, 2.0, 0, -1, True])
def test_the_size_of_a_solver_is_a_number_of_parameters(size: object) -> None:
    with pytest.raises(DecompositionError, match="size must be a whole number >= 1, got"):
        SolveCurvature(size, lambda v, damping: v)  # type: ignore[arg-type]


@pytest.mark.parametrize("solve", [None, torch.eye(3)])
def test_a_solver_is_a_function(solve: object) -> None:
    with pytest.raises(DecompositionError, match="are functions of vectors, got"):
        SolveCurvature(3, solve)  # type: ignore[arg-type]


@pytest.mark.parametrize("matrix", [None, "C", torch.eye(2) * 1j, [["a", "b"], ["c", "d"]]])
def test_a_matrix_of_anything_else_is_refused(matrix: object) -> None:
    for make in (DenseCurvature, lambda m: BlockDiagonal({"a": m})):
        with pytest.raises(DecompositionError, match="a curvature matrix must be a dense array"):
            make(matrix)  # type: ignore[arg-type]
