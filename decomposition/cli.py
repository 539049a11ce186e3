"""The command line: ``decompose run | plan | open | spectrum | report | problems | study``."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from decomposition import __version__, interruption
from decomposition.errors import DecompositionError, StoreError

if TYPE_CHECKING:
    from xarray import DataTree

    from decomposition.commands import Open, Plan, Report, Run, Spectrum, Study
    from decomposition.settings import Settings

QUESTION = "Which step of a curvature approximation costs how much attribution quality?"


COMMANDS = {
    "run": "Decompose a problem: train, retrain on subsets, build every rung, score, report.",
    "plan": "Say how each rung would be computed, in which time and memory, before anything runs.",
    "spectrum": "Inspect eigen-spectra: of a problem's curvatures, or from a result's eigenvalues.",
    "open": "Show a report in the browser.",
    "report": "Write the report again from result.nc, or a study's from study.nc, alone.",
    "problems": "List the built-in problems, the formats of data files, and their options.",
    "study": "See how far a study is: what is done, running, failed or missing, and the time left.",
}
"""Command → what it does."""
EXAMPLES = """Start here:
  decompose problems                                what can be studied without a file of your own
  decompose run digits --quick --out first-look/    half a minute
  decompose open first-look/                        its report, in the browser
  decompose plan my_problem.py:make_problem         time and memory of a run on a model of yours
  decompose run my_problem.py:make_problem --out mine/

make_problem() returns decomposition.Problem(model, loss, train, query, recipe=Recipe(...)), with
trained=True in place of a recipe for a checkpoint that is to be studied as it is. What belongs to
the problem is set there: weights of examples, weight_decay_in_curvature, the recipe."""


def overview() -> str:
    """``decompose --help``: needs no PyTorch, whose import takes seconds."""
    wide = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{wide}}  {said}" for name, said in COMMANDS.items())
    return (
        f"usage: decompose COMMAND …\n\n{QUESTION}\n\n{listed}\n\n{EXAMPLES}\n\n"
        "Options of a command: decompose COMMAND --help. Version: decompose --version."
    )


def main() -> None:
    """What ``decompose`` does; exit codes: 0 done, 1 said what is wrong, 130 interrupted."""
    with interruption.reported():
        try:
            if "--version" in sys.argv[1:2]:
                _say(f"decompose {__version__}")
            elif sys.argv[1:2] in (["--help"], ["-h"]):
                _say(overview())
            else:
                _main()
        except DecompositionError as error:
            print(f"decompose: {error}", file=sys.stderr)
            sys.exit(1)


def _say(text: str) -> None:
    with _output():
        print(text)


@contextlib.contextmanager
def _output() -> Iterator[None]:
    """Around what prints: a failure is met here, not when the interpreter ends.

    Raises:
        StoreError: the standard output is a file, and its disk is full.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # the reader has seen enough: `... | head`
            sys.exit(0)
        raise StoreError(
            f"cannot write to the standard output ({error.strerror or error}): free space, or "
            "send it elsewhere"
        ) from error


def _main() -> None:
    import tyro

    from decomposition.commands import Open, Plan, Problems, Report, Run, Spectrum, Study

    with _output():
        command = tyro.cli(
            Annotated[Run, tyro.conf.subcommand("run")]
            | Annotated[Spectrum, tyro.conf.subcommand("spectrum")]
            | Annotated[Open, tyro.conf.subcommand("open")]
            | Annotated[Report, tyro.conf.subcommand("report")]
            | Annotated[Plan, tyro.conf.subcommand("plan")]
            | Annotated[Problems, tyro.conf.subcommand("problems")]
            | Annotated[Study, tyro.conf.subcommand("study")],
            prog="decompose",
            description=QUESTION,
        )
    if isinstance(command, Run | Spectrum):
        import_module("decomposition.run")  # now, so that no exception meets an import
    interruption.begin()
    if isinstance(command, Run):
        _run(command)
    elif isinstance(command, Spectrum):
        _spectrum(command)
    elif isinstance(command, Open):
        _open(command)
    elif isinstance(command, Report):
        _report(command)
    elif isinstance(command, Study):
        _study(command)
    elif isinstance(command, Plan):
        _plan(command)
    else:
        _problems()


def _run(command: Run) -> None:
    from decomposition.problems import load_problem
    from decomposition.results.write import output_folder
    from decomposition.run import run
    from decomposition.scores.elsewhere import read_named

    folder = output_folder(command.out)
    settings = command.settings.checked()
    if command.quick:
        settings = quick_settings(settings)
    problem = load_problem(command.problem, command.problem_seed, quick=command.quick)
    tree = run(
        problem,
        folder,
        scores=read_named(command.scores),
        settings=settings,
        command=shlex.join(["decompose", *sys.argv[1:]]),
        bank=command.bank,
    )
    say_result(tree, folder, command.json)


def say_result(tree: DataTree, folder: Path, as_json: bool) -> None:
    """Verdict, recommendation, what would resolve more, and where the report is.

    Scripts get JSON on the standard output, and nothing else there.
    """
    from decomposition.report import closing

    where = (
        f"wrote {folder / 'result.nc'} and {folder / 'report.html'}; "
        f"{shlex.join(['decompose', 'open', str(folder)])} shows it"
    )
    lines = "\n".join([*closing.closing_lines(tree), where])
    if as_json:
        print(lines, file=sys.stderr)
        _say(closing.as_json(tree))
    else:
        _say(lines)


def quick_settings(settings: Settings) -> Settings:
    """The settings of ``--quick``: what the user has changed stays, what is slow is cut."""
    from decomposition.settings import Settings

    default = Settings()
    changes = {
        "masks": 100,
        "second_order_masks": 30,
        "leave_one_out_examples": 60,
        "matrix_norms": False,
    }
    unchanged = {k: v for k, v in changes.items() if getattr(settings, k) == getattr(default, k)}
    return replace(settings, **unchanged)


def _spectrum(command: Spectrum) -> None:
    from decomposition.results.write import output_folder
    from decomposition.spectrum.command import default_folder, inspect_spectra

    out = default_folder(command.source) if command.out is None else output_folder(command.out)
    inspect_spectra(command.source, out, command.inspection, command.problem_seed, command.quick)
    _say(f"wrote {out / 'spectrum.nc'}, {out / 'tables'} and {out / 'figures'}")


def _report(command: Report) -> None:
    from decomposition import report
    from decomposition.errors import ResultFileError
    from decomposition.report.closing import as_json
    from decomposition.report.page import as_tree
    from decomposition.results.write import output_folder

    if not command.results:
        raise ResultFileError("no result named; say where it is: decompose report out/")
    first = command.results[0]
    folder = _folder(first) if command.out is None else output_folder(command.out)
    write = report.write_report if command.format == "html" else report.write_markdown
    wrote = f"wrote {write(command.results, folder)}"
    if command.json:
        print(wrote, file=sys.stderr)
        _say(as_json(as_tree(command.results)))
    else:
        _say(wrote)


def _open(command: Open) -> None:
    import webbrowser

    from decomposition.errors import ResultFileError

    page = _page(command.result)
    _say(str(page))
    try:
        shown = webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        shown = False
    if not shown:
        raise ResultFileError(
            f"there is no browser here: open {page} in one, or copy it to where one is (it is one "
            "file, and needs no network)"
        )


def _page(path: Path) -> Path:
    """The report itself, or that in a folder.

    Raises:
        ResultFileError: there is none.
    """
    from decomposition.errors import ResultFileError
    from decomposition.results.write import COMPARISON_NAME, REPORT_NAME

    if path.is_file() and path.suffix == ".html":
        return path
    folder = _folder(path)
    for name in (REPORT_NAME, COMPARISON_NAME):
        if (folder / name).is_file():
            return folder / name
    again = shlex.join(["decompose", "report", str(folder)])
    raise ResultFileError(
        f"no {REPORT_NAME} in {folder}: say in which folder a run or a study has written one; of a "
        f"result it is made by {again}"
    )


def _study(command: Study) -> None:
    from decomposition.study.status import study_status

    _say(study_status(command.out).text(everything=command.all))


def _plan(command: Plan) -> None:
    from decomposition.plan_command import plan_text
    from decomposition.problems import load_problem

    settings = command.settings.checked()
    if command.quick:
        settings = quick_settings(settings)
    problem = load_problem(command.problem, command.problem_seed, quick=command.quick)
    _say(plan_text(problem.to(settings.device), settings))


def _folder(result: Path) -> Path:
    return result if result.is_dir() else result.parent


def _problems() -> None:
    from decomposition.problems.registry import listing

    _say(listing())


if __name__ == "__main__":
    from decomposition.__main__ import main as entry

    entry()
