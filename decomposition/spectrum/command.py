"""``decompose spectrum``: from a problem or a result to tables and figures in files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import xarray as xr

from decomposition.checks import Rule, check_fields, number, one_of, several, text, whole
from decomposition.device import describe, full_precision, named_device, resolve_device
from decomposition.errors import DecompositionError
from decomposition.spectrum.quadrature import RULES as ESTIMATION_RULES
from decomposition.spectrum.quadrature import Estimation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from decomposition.chain.plan import Plan
    from decomposition.problem import Problem

RULES: dict[str, Rule] = {
    "rungs": several(text),
    "blocks": several(text),
    "checkpoints": several(whole()),
    "method": one_of("auto", "dense", "estimate"),
    "damping": number(0, above=True),
    **{name: ESTIMATION_RULES[name] for name in ("probes", "steps", "seed")},
    "device": named_device,
}
"""What each field of an Inspection may be."""
SPECTRUM_NAME = "spectrum.nc"
DENSE_LIMIT = 12_000
"""P above which matrices are not formed unless asked for: 1.2 GiB each."""
ALONG_TRAINING = ("hessian", "ggn", "kfac")
"""Rungs whose spectra are taken at checkpoints, unless others are asked for."""


@dataclass(frozen=True)
class Inspection:
    """What `decompose spectrum` computes."""

    rungs: tuple[str, ...] = ()
    """hessian, ggn, block_hessian, block_ggn, ekfac_hessian, ekfac, kfac; default the chain."""
    blocks: tuple[str, ...] = ()
    """Layers to treat on their own beside the whole; default all."""
    checkpoints: tuple[int, ...] = ()
    """Epochs at which spectra along training are taken, 0 is the initialisation; default none
    (each costs as much as the rest). With them, rungs beside the chain are left out."""
    method: Literal["auto", "dense", "estimate"] = "auto"
    """dense: form and decompose every matrix. estimate: Lanczos, quadrature with error bars, and
    Gram matrices; eigenvalues only. auto: dense up to 12,000 parameters."""
    damping: float = 1.0
    """λ of the score errors, as a multiple of trace(GGN) / P."""
    probes: int = 8
    """Random vectors of an estimate."""
    steps: int = 80
    """Lanczos steps of each."""
    seed: int = 0
    """Seed of an estimate."""
    device: str = "cpu"
    """Where training and curvature run: cpu, cuda or cuda:N; a result is read as it is."""

    def __post_init__(self) -> None:
        """Check what can be checked before any work."""
        check_fields(self, RULES, DecompositionError, "{}")

    @property
    def estimation(self) -> Estimation:
        """The work of an estimate."""
        return Estimation(probes=self.probes, steps=self.steps, seed=self.seed)

    def plan(self, problem: Problem) -> Plan:
        """The form of each rung, by the method asked for."""
        from decomposition.chain.plan import DENSE_COPIES, plan_chain

        matrices = int(DENSE_COPIES * 8 * problem.num_parameters**2)
        large = problem.num_parameters > DENSE_LIMIT
        estimated = self.method == "estimate" or (self.method == "auto" and large)
        return plan_chain(problem, matrices - 1 if estimated else matrices, device=problem.device)


def default_folder(source: str) -> Path:
    """``spectrum``, beside the result if ``source`` is one."""
    if not is_result(source):
        return Path("spectrum")
    path = Path(source)
    return (path if path.is_dir() else path.parent) / "spectrum"


def is_result(source: str) -> bool:
    """Whether ``source`` names a result file or a folder, and not a problem."""
    return source.endswith(".nc") or Path(source).is_dir()


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
    from decomposition.problems import load_problem
    from decomposition.results import open_result
    from decomposition.results.write import check_replaceable, check_writable, output_folder
    from decomposition.spectrum.inspect import inspect_result, known_rungs
    from decomposition.spectrum.scopes import check_blocks

    folder = output_folder(out)
    check_replaceable(folder / SPECTRUM_NAME)
    inspection = inspection or Inspection()
    if is_result(source):
        result = open_result(source)
        tree = inspect_result(result, inspection.rungs or None, inspection.blocks or None)
        tree.attrs |= {"result_" + str(key): value for key, value in result.attrs.items()}
    else:
        known_rungs(inspection.rungs)
        problem = load_problem(source, problem_seed, quick=quick)
        check_blocks(inspection.blocks, (block.name for block in problem.blocks))
        check_writable(folder)
        trained = problem.to(resolve_device(inspection.device)).trained(progress=True)
        tree = _of_problem(trained, inspection)
        tree.attrs |= _attributes(trained, inspection, problem_seed)
    write_inspection(tree, folder)
    return tree


def _of_problem(problem: Problem, inspection: Inspection) -> xr.DataTree:
    from decomposition.chain.build import CHAIN, build_chain
    from decomposition.spectrum.inspect import inspect_problem
    from decomposition.spectrum.training import training_spectra

    plan, work = inspection.plan(problem), inspection.estimation
    rungs, blocks = inspection.rungs or None, inspection.blocks or None
    tree = inspect_problem(problem, rungs, blocks, inspection.damping, plan, work, progress=True)
    if inspection.checkpoints:
        along = [rung for rung in inspection.rungs or ALONG_TRAINING if rung in CHAIN]
        build = partial(build_chain, plan=plan)
        spectra = training_spectra(
            problem, inspection.checkpoints, along, build, blocks, work, progress=True
        )
        tree["training"] = xr.DataTree(spectra)
    return tree


def _attributes(problem: Problem, inspection: Inspection, seed: int) -> dict[str, object]:
    """What made the file; it is no result, so it bears no schema version."""
    from decomposition.results import provenance

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


def write_inspection(tree: xr.DataTree, out: Path) -> None:
    """spectrum.nc, one CSV table per section, every figure as SVG and PNG.

    Raises:
        StoreError: the folder cannot be written.
    """
    from decomposition.report.drawing import draw, png
    from decomposition.results.write import write_tree, write_whole

    write_tree(tree, out / SPECTRUM_NAME)
    for name, data in sections(tree):
        frame = data.drop_attrs().to_dataframe().dropna(how="all", subset=list(data.data_vars))
        table = frame.to_csv(float_format="%.9g")
        write_whole(out / "tables" / f"{name.replace('/', '_')}.csv", table.encode())
    for name, axes in figures(tree):
        write_whole(out / "figures" / f"{name}.svg", draw(axes, name).svg)
        write_whole(out / "figures" / f"{name}.png", png(axes))


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


def figures(tree: xr.DataTree) -> Iterator[tuple[str, Axes]]:
    """(file name without ending, Axes) of every figure that the tree has the section of."""
    from decomposition.report.figures import pairs, spectra

    of_scope: dict[str, tuple[str, Callable[..., Axes]]] = {
        "eigenvalues": ("rank", spectra.plot_rank_curve),
        "density": ("density", spectra.plot_density),
        "cumulative": ("rank", spectra.plot_cumulative),
        "effective_dimension": ("effective_dimension", spectra.plot_effective_dimension),
        "outliers": ("outliers", spectra.plot_outliers),
    }
    once: dict[str, tuple[str, Callable[..., Axes]]] = {
        "mismatch_by_decade": ("mismatch_by_decade", pairs.plot_mismatch_by_decade),
        "mismatch_parts": ("mismatch", pairs.plot_mismatch_parts),
        "gradient_energy": ("gradient_energy", pairs.plot_gradient_energy),
        "score_error": ("score_error", pairs.plot_score_error),
        "weyl": ("movement", pairs.plot_weyl),
        "davis_kahan": ("movement", pairs.plot_davis_kahan),
        "training": ("training", spectra.plot_training_spectra),
    }
    for name, (section, plot) in of_scope.items():
        if section in tree.children:
            data = tree.children[section].to_dataset()
            for i, scope in enumerate(map(str, data["scope"].values)):
                yield f"{name}_{_safe(scope, i)}", plot(data, scope)
    for name, (section, plot) in once.items():
        if section in tree.children:
            yield name, plot(tree.children[section].to_dataset())
    if "overlap" in tree.children:
        data = tree.children["overlap"].to_dataset()
        yield "overlap", pairs.plot_subspace_overlap(data["overlap"], str(data.attrs["reference"]))
    if "cosines" in tree.children:
        data = tree.children["cosines"].to_dataset()
        for rung in map(str, data["rung"].values):
            matrix = data["squared_cosine"].sel(rung=rung)
            yield f"cosines_{rung}", pairs.plot_cosines(matrix, rung, str(data.attrs["reference"]))


def _safe(scope: str, position: int) -> str:
    """A block's name as part of a file name; its position where the name does not serve."""
    plain = scope.replace(".", "_")
    if plain == "whole":
        return plain
    named = plain.isascii() and plain.replace("_", "").isalnum()
    return f"block_{plain}" if named else f"block_number_{position}"
