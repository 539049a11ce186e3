"""A bank made elsewhere: the same result as one's own, and clear about files that do not fit."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from decomposition import run
from decomposition.cli import main
from decomposition.losses import CustomLoss
from decomposition.problem import Problem
from decomposition.retraining import Bank, BankPlan, read_bank, retrain_bank
from decomposition.retraining.supplied import BankFileError, as_supplied
from decomposition.settings import Settings
from tests.tiny_problem import make

PLAN = BankPlan(masks=12, second_order_masks=6)
SETTINGS = Settings(
    masks=12,
    second_order_masks=6,
    damping_points=3,
    resamples=100,
    matrix_norms=False,
    lattice=False,
)


@pytest.fixture(scope="module")
def trained() -> Problem:
    return make().trained()


@pytest.fixture(scope="module")
def bank(trained: Problem) -> Bank:
    return retrain_bank(trained, PLAN, progress=False)


def arrays(bank: Bank) -> dict[str, np.ndarray]:
    assert bank.outputs is not None
    assert bank.second_outputs is not None
    return {
        "masks": bank.masks,
        "outputs": bank.outputs,
        "second_outputs": bank.second_outputs,
    }


def losses(bank: Bank, problem: Problem) -> dict[str, np.ndarray]:
    second = bank.second_measurements(problem)
    assert second is not None
    return {
        "masks": bank.masks.astype(float),
        "losses": bank.measurements(problem),
        "second_losses": second,
    }


def saved(path: Path, content: dict[str, np.ndarray]) -> Path:
    np.savez(path / "bank.npz", **content)
    return path / "bank.npz"


def test_an_archive_is_read_as_it_was_written(trained: Problem, bank: Bank, tmp_path: Path) -> None:
    content = arrays(bank) | {"targets": trained.query[1].numpy()}
    found = read_bank(saved(tmp_path, content), trained)
    np.testing.assert_array_equal(found.masks, bank.masks)
    np.testing.assert_array_equal(found.measurements(trained), bank.measurements(trained))
    np.testing.assert_array_equal(
        found.second_measurements(trained), bank.second_measurements(trained)
    )
    np.testing.assert_allclose(found.base_outputs, bank.base_outputs, atol=1e-5)
    assert (found.plan.masks, found.plan.repeats, found.plan.alpha) == (12, 1, 0.5)
    assert found.source == "bank.npz"


def test_losses_alone_serve_the_loss(trained: Problem, bank: Bank, tmp_path: Path) -> None:
    found = read_bank(saved(tmp_path, losses(bank, trained)), trained)
    np.testing.assert_array_equal(found.measurements(trained), bank.measurements(trained))
    with pytest.raises(BankFileError, match="holds losses, from which no margin"):
        found.measurements(trained, "margin")


def test_dimensions_of_netcdf_are_found_by_name(
    trained: Problem, bank: Bank, tmp_path: Path
) -> None:
    assert bank.outputs is not None
    data = xr.Dataset(
        {
            "masks": (("train", "mask"), bank.masks.T.astype(np.int8)),
            "outputs": (("query", "output", "repeat", "mask"), bank.outputs.transpose(2, 3, 1, 0)),
        }
    )
    data.to_netcdf(tmp_path / "bank.nc", engine="h5netcdf")
    found = read_bank(tmp_path / "bank.nc", trained)
    np.testing.assert_array_equal(found.masks, bank.masks)
    np.testing.assert_array_equal(found.outputs, bank.outputs)
    assert found.second_outputs is None


def test_a_supplied_bank_gives_the_result_of_ones_own(
    trained: Problem, bank: Bank, tmp_path: Path
) -> None:
    own = run(trained, tmp_path / "own", settings=SETTINGS, progress=False)
    files = (saved(tmp_path, arrays(bank)), tmp_path / "own" / "result.nc", bank)
    for source in files:
        found = run(trained, settings=replace(SETTINGS, masks=999), progress=False, bank=source)
        for group in ("/shares", "/attribution", "/bank"):
            for name, values in own[group].data_vars.items():
                if values.dtype.kind == "f" and name != "base_outputs":
                    np.testing.assert_array_equal(found[group][name].values, values.values)
        about = found["/attribution"].attrs
        assert about["truth"] == "supplied_bank"
        assert '"masks": 12' in found.attrs["config"]
        assert "the truth is a supplied bank" in found.attrs["notes"]
    assert "truth" not in own["/attribution"].attrs


def test_losses_are_kept_in_the_result_and_read_from_it(
    trained: Problem, bank: Bank, tmp_path: Path
) -> None:
    path = saved(tmp_path, losses(bank, trained))
    first = run(trained, tmp_path / "out", settings=SETTINGS, progress=False, bank=path)
    again = read_bank(tmp_path / "out" / "result.nc", trained)
    np.testing.assert_array_equal(again.measurements(trained), first["/bank"]["losses"].values)
    assert "supplied bank" in (tmp_path / "out" / "report.html").read_text()


def test_the_command_takes_a_bank(
    trained: Problem, bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = saved(tmp_path, arrays(bank)), tmp_path / "out"
    command = f"decompose run tests/tiny_problem.py:make --bank {path} --out {out} --quick"
    monkeypatch.setattr("sys.argv", [*command.split(), "--resamples", "100"])
    main()
    with xr.open_datatree(out / "result.nc", engine="h5netcdf") as tree:
        assert tree["/bank"].sizes["mask"] == 12
        assert tree["/attribution"].attrs["bank_source"] == "bank.npz"
    assert not (out / "bank").exists()


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], dict]:
    return lambda content: content | {name: change(content[name])}


def put(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array = array.astype(np.float32)
        array[3, 0] = value
        return array

    return change


def without(name: str) -> Callable[[dict], dict]:
    return lambda content: {key: value for key, value in content.items() if key != name}


WRONG = {
    r"holds no array masks \(it holds outputs, second_outputs": without("masks"),
    "holds neither outputs .* nor losses": without("outputs"),
    r"masks must be \(M, N\) with N = 32.*got \(12, 31\)": changed("masks", lambda m: m[:, 1:]),
    "must be 0 or 1 .* got 0.5 at mask 3, example 0": changed("masks", put(0.5)),
    "must be 0 or 1 .* got nan at mask 3, example 0": changed("masks", put(np.nan)),
    "1 of 12 masks are distinct, and at least 6 must be": changed(
        "masks", lambda m: np.ones_like(m)
    ),
    "mask 11 keeps no example": changed("masks", lambda m: np.arange(12)[:, None] < 11 * m),
    "1 of 1 masks are distinct, and at least 6 must be": changed("masks", lambda m: m[:1]),
    r"outputs must be \(M = 12, R, Q = 6, C = 2\), got \(12, 6, 2\)": changed(
        "outputs", lambda f: f[:, 0]
    ),
    r"outputs must be .*Q = 6.*got \(12, 1, 5, 2\)": changed("outputs", lambda f: f[:, :, 1:]),
    r"outputs must be .*M = 12.*got \(11, ": changed("outputs", lambda f: f[1:]),
    r"outputs is nan at \(3, 0, 0, 0\)": changed("outputs", put(np.nan)),
    "outputs must be floating point, got int64": changed("outputs", lambda f: f.astype(int)),
    r"second_outputs must be \(M2, Q = 6, C = 2\)": changed("second_outputs", lambda f: f[0]),
    "belong to the first masks, 2 … 12 of them, got 1": changed("second_outputs", lambda f: f[:1]),
    "not those of the problem's queries": lambda content: content | {"targets": np.full(6, 7)},
    "targets must be numbers.*got <U1": lambda content: content | {"targets": np.full(6, "a")},
    r"targets must be numbers.*got datetime64\[D\]": lambda content: (
        content | {"targets": np.full(6, "2020-01-01", "M8[D]")}
    ),
    "targets must be numbers.*'a'": lambda content: (
        content | {"targets": np.zeros(6, [("a", "f4")])}
    ),
    "damaged, or holds Python objects": changed("outputs", lambda f: f.astype(object)),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_does_not_fit_is_named(
    message: str, trained: Problem, bank: Bank, tmp_path: Path
) -> None:
    path = saved(tmp_path, WRONG[message](arrays(bank)))
    with pytest.raises(BankFileError, match=message):
        read_bank(path, trained)


def test_a_file_that_is_no_bank_is_named(trained: Problem, bank: Bank, tmp_path: Path) -> None:
    path = tmp_path / "bank.npz"
    with pytest.raises(BankFileError, match=r"bank.npz cannot be read: No such file"):
        read_bank(path, trained)
    path.write_text("masks")
    with pytest.raises(BankFileError, match="neither a NumPy archive"):
        read_bank(path, trained)
    whole = saved(tmp_path, arrays(bank)).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BankFileError, match="damaged"):
        read_bank(path, trained)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(BankFileError, match="damaged"):
        read_bank(path, trained)


PLACES = st.floats(0, 1, exclude_max=True)
FORMATS = {"npz": np.savez, "deflated": np.savez_compressed}


@given(kind=st.sampled_from([*FORMATS]), where=PLACES, change=st.integers(1, 255))
def test_a_damaged_byte_changes_nothing_or_is_refused(
    kind: str, where: float, change: int, trained: Problem, bank: Bank, tmp_path_factory
) -> None:
    path = tmp_path_factory.getbasetemp() / "bank.npz"
    FORMATS[kind](path, **arrays(bank))
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= change
    path.write_bytes(content)
    with suppress(BankFileError):
        found = read_bank(path, trained)
        np.testing.assert_array_equal(found.masks, bank.masks)
        np.testing.assert_array_equal(found.outputs, bank.outputs)
        np.testing.assert_array_equal(found.second_outputs, bank.second_outputs)


@given(where=PLACES, change=st.integers(1, 255))
def test_netcdf_with_checksums_hides_no_damage(
    where: float, change: int, trained: Problem, bank: Bank, tmp_path_factory
) -> None:
    path = netcdf(tmp_path_factory.getbasetemp(), bank, checked=True)
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= change
    path.write_bytes(content)
    with suppress(BankFileError):
        found = read_bank(path, trained)
        np.testing.assert_array_equal(found.masks, bank.masks)
        np.testing.assert_array_equal(found.outputs, bank.outputs)


def netcdf(folder: Path, bank: Bank, checked: bool = False) -> Path:
    data = xr.Dataset(
        {
            "masks": (("mask", "train"), bank.masks.astype(np.int8)),
            "outputs": (("mask", "repeat", "query", "output"), bank.outputs),
        }
    )
    encoding = {str(name): {"fletcher32": checked} for name in data.data_vars}
    data.to_netcdf(folder / "bank.nc", engine="h5netcdf", encoding=encoding)
    return folder / "bank.nc"


def _vlen(file: h5py.File) -> None:
    del file["masks"]
    file.create_dataset("masks", (12,), h5py.vlen_dtype("i4"))


def _huge(file: h5py.File) -> None:
    del file["masks"]
    file.create_dataset("masks", (10**13, 32), "i1", chunks=(1024, 32))


def _null(file: h5py.File) -> None:
    del file["masks"]
    file.create_dataset("masks", data=h5py.Empty("i1"))


def _compound(file: h5py.File) -> None:
    del file["masks"]
    file.create_dataset("masks", (12, 32), [("a", "i4")])


def attribute(array: str, name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file[array].attrs.__setitem__(name, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (attribute("outputs", "scale_factor", 0.5), "outputs has the attribute scale_factor"),
        (attribute("masks", "add_offset", 1), "masks has the attribute add_offset"),
        (attribute("outputs", "units", "days since 2000-01-01"), "outputs has the attribute units"),
        (attribute("masks", "_FillValue", np.int8(1)), "masks has missing values"),
        (_null, "masks has no values and no shape"),
        (_huge, r"masks claims 3.2e\+14 bytes, more than"),
        (_vlen, r"masks must be \(M, N\)"),
        (_compound, "masks must be 0 or 1"),
    ],
)
def test_what_netcdf_may_also_hold_is_refused(
    change: Callable[[h5py.File], None], message: str, trained: Problem, bank: Bank, tmp_path
) -> None:
    path = netcdf(tmp_path, bank)
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(BankFileError, match=message):
        read_bank(path, trained)


@pytest.mark.parametrize("kind", [">f4", np.longdouble])
def test_any_byte_order_and_width_is_scored(
    kind, trained: Problem, bank: Bank, tmp_path: Path
) -> None:
    assert bank.outputs is not None
    path = saved(tmp_path, arrays(bank) | {"outputs": bank.outputs.astype(kind)})
    truth = bank.measurements(trained)
    np.testing.assert_array_equal(read_bank(path, trained).measurements(trained), truth)
    held = as_supplied(replace(bank, outputs=bank.outputs.astype(kind)), trained)
    np.testing.assert_array_equal(held.measurements(trained), truth)


def test_a_cross_entropy_below_zero_is_refused_and_a_custom_loss_may_be(
    trained: Problem, bank: Bank, tmp_path: Path
) -> None:
    path = saved(tmp_path, losses(bank, trained) | {"losses": -bank.measurements(trained)})
    with pytest.raises(BankFileError, match="cross_entropy is never negative: give losses"):
        read_bank(path, trained)
    custom = CustomLoss(lambda f, y: torch.nn.functional.cross_entropy(f, y, reduction="none") - 9)
    assert read_bank(path, replace(trained, loss=custom)).losses is not None


def test_pipes_folders_and_loops_are_refused_at_once(trained: Problem, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, message in (("pipe", "a pipe"), ("", "a folder"), ("loop", "symbolic links")):
        with pytest.raises(BankFileError, match=message):
            read_bank(tmp_path / name, trained)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target": "pbrf"}, "target pbrf is measured here"),
        ({"attribution": False}, "without attribution"),
        ({"base_seeds": 2}, "one base model, got base_seeds = 2"),
    ],
)
def test_settings_that_a_bank_cannot_serve(
    change: dict, message: str, trained: Problem, bank: Bank
) -> None:
    with pytest.raises(BankFileError, match=message):
        run(trained, settings=replace(SETTINGS, **change), progress=False, bank=bank)


def test_a_bank_of_another_problem_is_refused(trained: Problem, bank: Bank) -> None:
    other = replace(bank, masks=bank.masks[:, 1:])
    with pytest.raises(BankFileError, match="N = 32"):
        as_supplied(other, trained)
    with pytest.raises(BankFileError, match="got int"):
        as_supplied(3, trained)  # type: ignore[arg-type]


def test_second_outputs_of_a_bank_in_memory_are_checked_as_those_of_a_file(
    bank: Bank, trained: Problem
) -> None:
    """They make the noise ceiling: one that is not finite would hide in it."""
    second = np.asarray(bank.outputs)[:6, 0].copy()
    whole = replace(bank, masks=bank.masks.astype(int), second_outputs=second)
    assert as_supplied(whole, trained).masks.dtype == bool
    with pytest.raises(BankFileError, match="second_outputs must be"):
        as_supplied(replace(whole, second_outputs=second[:, :1]), trained)
    second[2, 1, 0] = np.nan
    with pytest.raises(BankFileError, match="second_outputs is nan at"):
        as_supplied(whole, trained)
