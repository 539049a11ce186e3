"""A real process, really killed in the middle of a bank."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from decomposition.retraining import Bank
from decomposition.retraining.store import SUFFIX
from tests.retraining.interrupted import CHUNKS, bank

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole() -> Bank:
    return bank(None)


def start(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.retraining.interrupted", str(folder), *options]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


def finished(folder: Path) -> int:
    return len(list(folder.glob(f"*{SUFFIX}")))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_bank_resumes_bit_for_bit(
    how: signal.Signals, whole: Bank, tmp_path: Path
) -> None:
    with start(tmp_path, "unfinished") as process:  # however late the signal, it is not done
        while finished(tmp_path) < 2 and process.poll() is None:
            time.sleep(0.005)
        os.kill(process.pid, how)
        process.communicate()
    assert process.returncode != 0
    assert 2 <= finished(tmp_path) < CHUNKS
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob(f"*{SUFFIX}")}
    resumed = bank(tmp_path)
    np.testing.assert_array_equal(resumed.outputs, whole.outputs)
    np.testing.assert_array_equal(resumed.second_outputs, whole.second_outputs)
    assert finished(tmp_path) == CHUNKS
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in kept.items())
    if how == signal.SIGINT:
        assert len(list(tmp_path.iterdir())) == CHUNKS


@pytest.mark.slow
def test_two_processes_share_a_folder(whole: Bank, tmp_path: Path) -> None:
    with start(tmp_path) as one, start(tmp_path) as other:
        one.communicate()
        other.communicate()
    assert one.returncode == other.returncode == 0
    assert len(list(tmp_path.iterdir())) == CHUNKS
    np.testing.assert_array_equal(bank(tmp_path).outputs, whole.outputs)
