"""``decompose spectrum``: from a problem or a result to files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import xarray as xr

from decomposition.device import describe, full_precision, resolve_device
from decomposition.inspection.drawings import figures
from decomposition.inspection.options import Inspection
from decomposition.inspection.sections import (
    estimate_problem,
    inspect_problem,
    inspect_result,
    known_rungs,
)
from decomposition.problem import Problem
from decomposition.problems import load_problem
from decomposition.report.drawing import draw
from decomposition.results import open_result, provenance
from decomposition.results.write import (
    check_replaceable,
    check_writable,
    output_folder,
    write_tree,
    write_whole,
)
from decomposition.spectrum.gather import check_blocks
from decomposition.spectrum.training import training_spectra

SPECTRUM_NAME = "spectrum.nc"
DENSE_LIMIT = 12_000
"""P above which matrices are not formed unless asked for: 1.2 GiB each."""


def default_folder(source: str) -> Path:
    """``spectrum``, beside the result if ``source`` is one."""
    if not is_result(source):
        return Path("spectrum")
    path = Path(source)
    return (path if path.is_dir() else path.parent) / "spectrum"


@full_precision()
def inspect_spectra(
    source: str,
    out: str | Path,
    inspection: Inspection | None = None,
    problem_seed: int = 0,
    quick: bool = False,
) -> xr.DataTree:
    """Inspect ``source`` and write spectrum.nc, tables/*.csv, figures/*.svg and *.png to ``out``.

    Args:
        source: a built-in problem, file.py:function, or a result (result.nc or its folder).
        out: folder to write to.
        inspection: what to compute.
        problem_seed: seed of a built-in problem.
        quick: the smaller version of a built-in problem.

    Raises:
        DecompositionError: anything wrong with source, rungs, blocks, device or folder.
    """
    folder = output_folder(out)
    check_replaceable(folder / SPECTRUM_NAME)
    inspection = inspection or Inspection()
    rungs, blocks = inspection.rungs or None, inspection.blocks or None
    if is_result(source):
        result = open_result(source)
        tree = inspect_result(result, rungs, blocks)
        tree.attrs |= {"result_" + str(key): value for key, value in result.attrs.items()}
    else:
        known_rungs(rungs)
        problem = load_problem(source, problem_seed, quick=quick)
        check_blocks(blocks, (block.name for block in problem.blocks))
        check_writable(folder)
        trained = problem.to(resolve_device(inspection.device)).trained(progress=True)
        large = problem.num_parameters > DENSE_LIMIT
        if inspection.method == "estimate" or (inspection.method == "auto" and large):
            tree = estimate_problem(trained, rungs, blocks, inspection.plan, progress=True)
        else:
            tree = inspect_problem(trained, rungs, blocks, inspection.damping)
        if inspection.checkpoints:
            tree["training"] = xr.DataTree(
                training_spectra(
                    trained, inspection.checkpoints, _along(rungs), blocks=blocks, progress=True
                )
            )
        tree.attrs |= _attributes(trained, inspection, problem_seed)
    write_inspection(tree, folder)
    return tree


def _attributes(problem: Problem, inspection: Inspection, seed: int) -> dict[str, object]:
    """What made the file; it is no result, so it bears no schema version."""
    attributes = provenance(
        problem=problem.name,
        config={"inspection": asdict(inspection), "recipe": asdict(problem.recipe)},
        seeds={"problem": seed, "estimate": inspection.seed},
        device=describe(problem.device),
        parameters=problem.num_parameters,
        examples=problem.num_examples,
        queries=problem.num_queries,
    )
    dropped = ("schema_version", "ci_level", "timings")
    return {key: value for key, value in attributes.items() if key not in dropped}


def is_result(source: str) -> bool:
    """Whether ``source`` names a result file or a folder, and not a problem."""
    return source.endswith(".nc") or Path(source).is_dir()


def write_inspection(tree: xr.DataTree, out: Path) -> None:
    """spectrum.nc, one CSV table per section, every figure as SVG and PNG.

    Raises:
        StoreError: the folder cannot be written.
    """
    write_tree(tree, out / SPECTRUM_NAME)
    for name, data in sections(tree):
        frame = data.drop_attrs().to_dataframe().dropna(how="all", subset=list(data.data_vars))
        text = frame.to_csv(float_format="%.9g")
        write_whole(out / "tables" / f"{name.replace('/', '_')}.csv", text.encode())
    for name, axes in figures(tree):
        drawing = draw(axes, name)
        write_whole(out / "figures" / f"{name}.svg", drawing.svg)
        write_whole(out / "figures" / f"{name}.png", drawing.png)


def sections(tree: xr.DataTree) -> Iterator[tuple[str, xr.Dataset]]:
    """(table name, data) with variables of different dimensions in tables of their own."""
    for node in tree.subtree:
        data = node.to_dataset(inherit=False)
        path = node.path.strip("/")
        if path == "rank":  # follows from the eigenvalues, and is as long
            continue
        full = max((set(v.dims) for v in data.data_vars.values()), key=len, default=set())
        by_dims: dict[tuple[object, ...], list[str]] = {}
        for name, variable in data.data_vars.items():
            by_dims.setdefault(tuple(variable.dims), []).append(str(name))
        for dims, names in by_dims.items():
            suffix = "" if set(dims) == full else "_by_" + "_".join(map(str, dims))
            unused = [c for c in data.coords if not set(data[c].dims) <= set(dims)]
            yield f"{path}{suffix}", data[names].drop_vars(unused, errors="ignore")


def _along(rungs: tuple[str, ...] | None) -> tuple[str, ...] | None:
    chain = ("hessian", "ggn", "block_ggn", "ekfac", "kfac")
    return ("hessian", "ggn", "kfac") if rungs is None else tuple(r for r in rungs if r in chain)
