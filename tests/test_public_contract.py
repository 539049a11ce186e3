"""The documented way in, line by line as users write it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import decomposition
from decomposition import Problem, Recipe, build_chain, influence_scores, open_result, run
from decomposition.curvature import Curvature


@pytest.fixture(scope="module")
def parts() -> dict:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(28, 3, generator=generator)
    y = (x.sum(1) > 0).long()
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    return {"module": module, "X": x[:24], "y": y[:24], "Xq": x[24:], "yq": y[24:]}


def test_the_contract_as_written(parts: dict, tmp_path: Path) -> None:
    module, X, y, Xq, yq = parts.values()
    problem = Problem(
        model=module,
        loss=torch.nn.CrossEntropyLoss(),
        train=(X, y),
        query=(Xq, yq),
        recipe=Recipe(epochs=3),
    )
    size = sum(p.numel() for p in module.parameters())
    chain = build_chain(problem)
    assert list(chain) == ["hessian", "ggn", "block_ggn", "ekfac", "kfac"]
    assert chain["kfac"].dense().shape == (size, size)
    assert chain["kfac"].dense().dtype == torch.float64
    for v in (torch.ones(size), torch.ones(size, 3)):
        for rung in chain.values():
            assert isinstance(rung, Curvature)
            assert rung.matvec(v).shape == (rung @ v).shape == v.shape
            assert rung.shape == rung.to_scipy().shape == (size, size)
            assert rung.dtype == torch.float64
            assert rung.solve(v, damping=1e-3).shape == v.shape
    eigenvalues = chain["hessian"].eigenvalues()
    assert eigenvalues.shape == (size,)
    assert bool((eigenvalues.diff() >= 0).all())
    assert influence_scores(problem, chain["ekfac"], damping=1e-3).shape == (4, 24)
    result = run(problem, out=tmp_path / "out/")
    assert isinstance(result, xr.DataTree)
    assert (tmp_path / "out/result.nc").is_file()
    assert (tmp_path / "out/report.html").is_file()
    reopened = open_result(tmp_path / "out/")
    np.testing.assert_array_equal(
        reopened["/attribution"]["lds"].values, result["/attribution"]["lds"].values
    )
    assert result["/bank"].sizes["mask"] == 1000


def test_the_result_tree_has_the_documented_names_and_dimensions(parts: dict) -> None:
    module, X, y, Xq, yq = parts.values()
    problem = Problem(
        module, torch.nn.CrossEntropyLoss(), (X, y), (Xq, yq), recipe=Recipe(epochs=2)
    )
    settings = decomposition.Settings(masks=20, second_order_masks=5, resamples=100)
    tree = run(problem, settings=settings, progress=False)
    documented = {
        "/spectrum": {"eigenvalues": ("rung", "index")},
        "/spectral_error": {"value": ("metric", "rung")},
        "/attribution": {
            "lds": ("rung", "damping", "query"),
            "lds_mean": ("rung", "damping", "ci_bound"),
            "ceiling": ("ci_bound",),
        },
        "/bank": {
            "masks": ("mask", "train"),
            "outputs": ("mask", "repeat", "query", "output"),
        },
        "/shares": {
            "drop": ("metric", "protocol", "step", "ci_bound"),
            "share": ("metric", "protocol", "step", "ci_bound"),
        },
    }
    for path, variables in documented.items():
        for name, dims in variables.items():
            assert set(tree[path][name].dims) == set(dims), (path, name)
            assert set(dims) <= set(tree[path].to_dataset().coords), (path, name)
    attributes = "schema_version created_at library_version command config versions device dtype"
    assert set(attributes.split()) | {"seeds"} <= set(tree.attrs)
    for node in tree.subtree:
        for value in node.attrs.values():
            assert not isinstance(value, bool | dict | None), node.path


def test_an_approximation_of_ones_own(parts: dict) -> None:
    module, X, y, Xq, yq = parts.values()
    problem = Problem(module, torch.nn.CrossEntropyLoss(), (X, y), (Xq, yq))

    def diagonal(p: Problem) -> Curvature:
        return decomposition.curvature.DenseCurvature(
            torch.diag(build_chain(p)["ggn"].dense().diagonal())
        )

    chain = build_chain(problem, extra={"diagonal": diagonal})
    assert list(chain) == ["hessian", "ggn", "block_ggn", "ekfac", "kfac", "diagonal"]


def test_every_public_name_is_documented() -> None:
    for name in decomposition.__all__:
        if not name.startswith("__"):
            assert getattr(decomposition, name).__doc__, name


def test_importing_the_package_draws_no_figures() -> None:
    """Every worker process of a study imports it; plotting libraries cost it seconds."""
    code = "import sys, decomposition; print(sorted({'matplotlib', 'seaborn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_what_it_says() -> None:
    """Names are imported when they are used; each is the one thing, not a module beside it."""
    for name in decomposition.__all__:
        assert getattr(decomposition, name) is getattr(decomposition, name)
        assert not isinstance(getattr(decomposition, name), type(sys))
    assert {"Curvature", "EKFAC", "KFAC", "Study", "read_bank"} <= set(decomposition.__all__)


def test_errors_are_one_tree_and_memory_is_no_value() -> None:
    from decomposition.errors import ProblemError
    from decomposition.memory import OutOfMemoryError

    assert issubclass(ProblemError, decomposition.DecompositionError)
    assert issubclass(ProblemError, ValueError)
    assert issubclass(OutOfMemoryError, decomposition.DecompositionError)
    assert issubclass(OutOfMemoryError, MemoryError)
    assert not issubclass(OutOfMemoryError, ValueError)
