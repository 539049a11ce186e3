"""A command that is interrupted at any moment ends with one line and its exit code."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINE = "decompose: interrupted; what is finished is kept, the same command resumes"


def start(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen[str], how: signal.Signals) -> None:
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + how
    assert said.strip() == LINE


@pytest.mark.parametrize(
    ("how", "delay"),
    [(signal.SIGINT, 0.3), (signal.SIGINT, 0.9), (signal.SIGTERM, 0.3), (signal.SIGTERM, 1.5)],
)
def test_while_it_starts(how: signal.Signals, delay: float, tmp_path: Path) -> None:
    """Imports take seconds, and turn exceptions into others: none is raised."""
    with start("-m", "decomposition", "run", "digits", "--out", str(tmp_path)) as process:
        time.sleep(delay)
        process.send_signal(how)
        ended(process, how)


WORK = """
import signal, sys, time
from decomposition import interruption
def work():
    print("at work", flush=True)
    time.sleep(60)
interruption.install()
interruption.begin()
with interruption.reported():
    {work}
"""
LOST = """
    try:
        work()
    except KeyboardInterrupt as error:
        raise SystemError("native code has met an exception") from error
"""
SLOW_TO_CLEAR_UP = """
    try:
        work()
    finally:
        print("clearing up", flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("work", ["work()", LOST.strip()])
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_at_work_whatever_the_exception_becomes(how: signal.Signals, work: str) -> None:
    with start("-c", WORK.format(work=work)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(how)
        ended(process, how)


def test_a_second_signal_ends_at_once() -> None:
    with start("-c", WORK.format(work=SLOW_TO_CLEAR_UP.strip())) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == "clearing up\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        ended(process, signal.SIGTERM)
        assert time.monotonic() - begun < 30


def test_a_signal_that_the_caller_ignores_stays_ignored() -> None:
    """As under nohup, or in the background of a script."""
    ignoring = WORK.replace(
        "from decomp", "signal.signal(signal.SIGINT, signal.SIG_IGN)\nfrom decomp"
    )
    with start("-c", ignoring.format(work="work()")) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        assert process.poll() is None
        process.terminate()
        ended(process, signal.SIGTERM)


def test_the_package_imports_nothing_heavy_by_itself() -> None:
    code = "import decomposition.__main__, sys; print({'torch', 'numpy', 'tyro'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "set()"


def test_the_function_run_is_not_hidden_by_its_module() -> None:
    code = "import decomposition.run; from decomposition import run; print(type(run).__name__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "function"
