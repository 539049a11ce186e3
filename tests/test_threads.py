"""Tests run side by side with one thread each, by the README's command as by any other."""

from __future__ import annotations

import subprocess
import sys

import torch

from tests.study.tiny_tasks import blas_threads

TELL = "from threadpoolctl import threadpool_info; import numpy; print(threadpool_info())"


def test_a_process_of_the_tests_has_one_thread() -> None:
    assert blas_threads() == torch.get_num_threads() == 1


def test_so_has_a_process_that_it_starts() -> None:
    told = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, check=True)
    assert "'num_threads': 1" in told.stdout
    assert told.stdout.count("'num_threads'") == told.stdout.count("'num_threads': 1,")
