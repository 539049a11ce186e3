"""Devices by name, and exact products on them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decomposition import Settings, run
from decomposition.cli import main
from decomposition.device import (
    DeviceError,
    chunk_bytes,
    device_named,
    full_precision,
    resolve_device,
)
from decomposition.errors import ProblemError
from decomposition.linalg import from_numpy, to_numpy
from tests import cases
from tests.elsewhere import elsewhere

UNKNOWN = {
    "no device": ("gpu", "unknown device 'gpu': use cpu, cuda or cuda:N"),
    "no index": ("cuda:x", "unknown device 'cuda:x'"),
    "no float64": ("mps", "MPS has no float64"),
    "no values": ("meta", "meta is not supported: use cpu, cuda or cuda:N"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_other_devices_are_refused_by_name(case: str) -> None:
    name, message = UNKNOWN[case]
    with pytest.raises(DeviceError) as error:
        device_named(name)
    assert message in str(error.value)
    with pytest.raises(DeviceError):
        Settings(device=name)


def test_the_cpu_has_one_name() -> None:
    assert device_named("cpu:0") == resolve_device("cpu") == torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said_before_any_work() -> None:
    assert Settings(device="cuda:1").device == "cuda:1"
    with pytest.raises(DeviceError, match=r"cuda is not available: .*; there is only cpu"):
        run(cases.tanh(), device="cuda", progress=False)
    with pytest.raises(DeviceError, match="not available"):
        cases.tanh().to("cuda")


def test_the_command_line_names_the_devices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    problem = "tests/tiny_problem.py:make"
    arguments = ["decompose", "run", problem, "--device", "gpu", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == ("decompose: unknown device 'gpu': use cpu, cuda or cuda:N\n")


def test_a_problem_that_lies_there_is_not_copied() -> None:
    problem = cases.tanh()
    assert problem.to("cpu") is problem


def test_model_and_data_lie_on_one_device() -> None:
    problem = cases.tanh()
    x, y = problem.query
    said = r"parameter 0\.weight is on cpu, query targets on meta"
    with elsewhere(), pytest.raises(ProblemError, match=said):
        replace(problem, query=(x, y.to("meta")))


def switches() -> tuple[object, ...]:
    newer = [
        getattr(owner, "fp32_precision", None)
        for owner in (torch.backends.cuda.matmul, *_parts_of_cudnn())
    ]
    return (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, *newer)


def _parts_of_cudnn() -> list[object]:
    return [getattr(torch.backends.cudnn, name, None) for name in ("conv", "rnn")]


@full_precision()
def fails_in_full_precision() -> None:
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    raise KeyError


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_tf32_is_off_inside_and_restored_outside(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        outside = switches()
        with pytest.raises(KeyError):
            fails_in_full_precision()
        assert switches() == outside
    finally:
        torch.set_float32_matmul_precision(before)


def test_chunks_of_the_cpu_do_not_depend_on_the_machine() -> None:
    assert chunk_bytes(torch.device("cpu"), 12345) == 12345


def test_arrays_and_tensors_share_memory_on_the_cpu() -> None:
    array = np.arange(3.0)
    tensor = from_numpy(array, torch.zeros(1))
    array[0] = 7.0
    assert tensor[0] == 7.0
    assert to_numpy(tensor.requires_grad_())[0] == 7.0
