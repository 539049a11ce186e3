"""The command line in real processes: it teaches, resumes, and says in one line what is wrong."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xarray as xr

from decomposition import Settings, __version__, open_result
from decomposition.cli import COMMANDS, main, quick_settings
from decomposition.commands import Open, Plan, Problems, Report, Run, Spectrum, Study
from tests.test_run import same

PROBLEM = Path(__file__).parent / "tiny_problem.py"
FAST = ["--masks", "20", "--second-order-masks", "4", "--resamples", "100", "--damping-points", "5"]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "decomposition.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(*arguments: str) -> tuple[int, str, str]:
    process = start(*arguments)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """The same entry point inside this process: no seconds spent on imports."""
    monkeypatch.setattr(sys, "argv", ["decompose", *arguments])
    code = 0
    try:
        main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    return lambda *arguments: call(monkeypatch, capsys, *arguments)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[int, str, str]]:
    out = tmp_path_factory.mktemp("cli") / "out"
    return out, finish("run", f"{PROBLEM}:make", "--out", str(out), *FAST)


def test_run_writes_a_result_and_a_report(done: tuple[Path, tuple[int, str, str]]) -> None:
    out, (code, stdout, stderr) = done
    assert code == 0, stderr
    assert f"{out / 'result.nc'}" in stdout
    assert "Traceback" not in stderr
    result = open_result(out)
    assert result.attrs["problem"] == "tiny"
    assert "run" in result.attrs["command"]
    assert "--masks 20" in result.attrs["command"]
    assert (out / "report.html").stat().st_size > 10_000


def test_a_run_ends_with_what_was_found_and_where(
    done: tuple[Path, tuple[int, str, str]],
) -> None:
    """What is lost, which step, what to use, what would resolve more, and the report."""
    out, (_, stdout, _) = done
    lines = stdout.splitlines()
    assert len(lines) == 5
    assert "replacing the exact Hessian by K-FAC" in lines[0]
    assert lines[2] == open_result(out)["recommendation"].attrs["sentence"]
    assert lines[4].endswith(f"decompose open {out} shows it")


def test_scripts_get_json_and_nothing_else(
    done: tuple[Path, tuple[int, str, str]], command, tmp_path: Path
) -> None:
    arguments = ["run", f"{PROBLEM}:make", "--out", str(tmp_path), *FAST]
    code, stdout, stderr = command(*arguments, "--json")
    assert code == 0
    found = json.loads(stdout)
    assert set(found["verdict"]) == set(found["level"]) >= {"tuned", "equal"}
    low, middle, high = found["level"]["tuned"]["kfac"]
    assert low <= middle <= high
    assert found["recommendation"]["sentence"] in stderr
    shown = json.loads(command("report", str(tmp_path), "--json")[1])
    assert shown == found


def test_a_report_is_opened_in_the_browser(
    done: tuple[Path, tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = tmp_path / "told"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {shlex.quote(str(told))}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    code, stdout, stderr = finish("open", str(done[0]))
    assert (code, stderr) == (0, "")
    assert stdout.strip() == str(done[0] / "report.html")
    assert told.read_text() == (done[0] / "report.html").resolve().as_uri()


def test_without_a_browser_the_page_is_named(
    done: tuple[Path, tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, value in {"BROWSER": "absent", "PATH": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    code, stdout, stderr = finish("open", str(done[0]))
    assert code == 1
    assert stdout.strip() == str(done[0] / "report.html")
    assert "there is no browser here" in stderr
    code, _, stderr = finish("open", str(tmp_path))
    assert code == 1
    assert f"decompose report {tmp_path}" in stderr


def test_report_comes_from_the_result_alone(
    done: tuple[Path, tuple[int, str, str]], tmp_path: Path, command
) -> None:
    (tmp_path / "result.nc").write_bytes((done[0] / "result.nc").read_bytes())
    code, stdout, _ = command("report", str(tmp_path))
    assert code == 0
    assert "report.html" in stdout
    assert (tmp_path / "report.html").read_text() == (done[0] / "report.html").read_text()


def test_help_names_every_command_as_its_own_help_does() -> None:
    kinds = (Run, Plan, Open, Spectrum, Report, Problems, Study)
    firsts = {kind.__name__.lower(): (kind.__doc__ or "").split("\n")[0] for kind in kinds}
    assert firsts == COMMANDS


def test_help_does_not_wait_for_pytorch() -> None:
    asked = (
        "import sys; sys.argv = ['decompose', '--help']; from decomposition.cli import main; "
        "main(); sys.exit(any(name in sys.modules for name in ('torch', 'xarray', 'scipy')))"
    )
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert all(name in found.stdout for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--help"], ["run", "report", "problems"]),
        (
            ["run", "--help"],
            ["file.py:function", "--out", "--masks", "--alpha", "--quick", "resumes", "default"],
        ),
        (["report", "--help"], ["result.nc"]),
    ],
)
def test_help_teaches(command, arguments: list[str], words: list[str]) -> None:
    code, stdout, _ = command(*arguments)
    assert code == 0
    for word in words:
        assert word in stdout, word


def test_every_setting_is_an_option_with_its_explanation(command) -> None:
    _, stdout, _ = command("run", "--help")
    for name in Settings.__dataclass_fields__:
        assert f"--{name.replace('_', '-')}" in stdout


def test_version_and_problems(command) -> None:
    assert command("--version")[1].strip() == f"decompose {__version__}"
    code, stdout, _ = command("problems")
    assert code == 0
    assert "digits" in stdout
    assert "file.py:function" in stdout


ERRORS = {
    "unknown problem": (["run", "mnist"], "unknown problem 'mnist': use one of digits"),
    "missing file": (["run", "absent.py:make"], "no such file: absent.py"),
    "failing function": (["run", f"{PROBLEM}:broken"], "broken failed: FileNotFoundError: weights"),
    "bad data": (["run", f"{PROBLEM}:nan"], "train input at row 3, feature 1 is nan"),
    "alpha": (["run", f"{PROBLEM}:make", "--alpha", "1.5"], "alpha must lie in (0, 1), got 1.5"),
    "no masks": (["run", f"{PROBLEM}:make", "--masks", "0"], "masks must be a whole number >= 2"),
    "no repeats": (["run", f"{PROBLEM}:make", "--repeats", "0"], "repeats must be a whole number"),
    "level": (["run", f"{PROBLEM}:make", "--level", "95"], "level must lie in (0, 1), got 95"),
    "negative seed": (["run", "digits", "--problem-seed", "-1"], "seed"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_one_line_and_exit_one(command, case: str, tmp_path: Path) -> None:
    arguments, message = ERRORS[case]
    code, _, stderr = command(*arguments, "--out", str(tmp_path / "out"))
    assert code == 1
    assert message in stderr
    assert stderr.startswith("decompose: ")
    assert stderr.count("\n") == 1
    assert "Traceback" not in stderr


def test_an_error_in_a_real_process(tmp_path: Path) -> None:
    code, stdout, stderr = finish("run", f"{PROBLEM}:nan", "--out", str(tmp_path))
    assert (code, stdout) == (1, "")
    assert stderr.startswith("decompose: train input at row 3")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("content", [None, b"", b"not a result", b"\x89HDF\r\n\x1a\n cut short"])
def test_report_of_what_is_no_result(command, content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "result.nc").write_bytes(content)
    code, _, stderr = command("report", str(tmp_path))
    assert code == 1
    assert stderr.startswith("decompose: ")
    assert "result.nc" in stderr
    assert "Traceback" not in stderr


def test_report_of_a_truncated_result(
    done: tuple[Path, tuple[int, str, str]], command, tmp_path: Path
) -> None:
    whole = (done[0] / "result.nc").read_bytes()
    (tmp_path / "result.nc").write_bytes(whole[: len(whole) // 2])
    code, _, stderr = command("report", str(tmp_path))
    assert code == 1
    assert "truncated or damaged" in stderr


def test_a_folder_that_cannot_be_written_is_named_at_once(command, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    arguments = ["run", f"{PROBLEM}:slow", "--out", str(tmp_path / "taken" / "out")]
    began = time.monotonic()
    code, _, stderr = command(*arguments)
    assert code == 1
    assert "cannot write" in stderr
    assert stderr.count("\n") == 1
    assert time.monotonic() - began < 10.0


def test_quick_changes_only_what_the_user_has_left_alone() -> None:
    assert quick_settings(Settings()).masks == 100
    assert quick_settings(Settings(masks=77)).masks == 77


SLOW = ["--masks", "1500", *FAST[2:], "--no-lattice", "--no-matrix-norms"]


def inside(monkeypatch: pytest.MonkeyPatch, out: Path) -> xr.DataTree:
    """The slow study by the same entry point, in this process."""
    arguments = ["run", f"{PROBLEM}:slow", "--out", str(out), *SLOW]
    monkeypatch.setattr(sys, "argv", ["decompose", *arguments])
    main()
    return open_result(out)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> xr.DataTree:
    with pytest.MonkeyPatch.context() as monkeypatch:
        return inside(monkeypatch, tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_resumes_to_the_same_result(
    how: signal.Signals,
    uninterrupted: xr.DataTree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ["run", f"{PROBLEM}:slow", "--out", str(tmp_path), *SLOW]
    bank = tmp_path / "bank"
    with start(*arguments) as process:
        while process.poll() is None and len(list(bank.glob("[!.]*"))) < 1:
            time.sleep(0.005)
        os.kill(process.pid, how)
        _, stderr = process.communicate(timeout=60)
    assert not (tmp_path / "result.nc").exists()
    kept = len(list(bank.glob("[!.]*")))
    assert kept >= 1
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command resumes" in stderr
        assert "Traceback" not in stderr
    resumed = inside(monkeypatch, tmp_path)
    for tree in (resumed, uninterrupted):
        tree.attrs["command"] = ""  # it names the folder
    same(resumed, uninterrupted)


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    code = "from decomposition.cli import main; import sys; sys.argv[1:] = ['problems']; main()"
    shell = f"{shlex.quote(sys.executable)} -u -c {shlex.quote(code)} | head -n 1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("name")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["problems"], ["run", "--help"]])
def test_a_full_disk_behind_the_output_is_one_line(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "decomposition", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("decompose: cannot write to the standard output (No space left")
    assert done.stderr.count("\n") == 1
