"""The bank on disk: found again, never trusted blindly, and clear about a folder that fails."""

import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from decomposition.atomic import ABANDONED_AFTER, unfinished
from decomposition.errors import ProblemError, StoreError
from decomposition.problem import Problem
from decomposition.retraining import Bank, BankPlan, retrain_bank, retrain_part
from decomposition.retraining.fingerprint import study_fingerprint
from decomposition.retraining.store import ChunkStore
from tests.cases import CASES
from tests.retraining.plain import RECIPE, with_recipe

PLAN = BankPlan(masks=4, second_order_masks=2)


@pytest.fixture(scope="module")
def trained() -> Problem:
    return with_recipe(CASES["gelu"]()).trained()


def bank(problem: Problem, folder: Path | None, plan: BankPlan = PLAN) -> Bank:
    return retrain_bank(problem, plan, folder, chunk_size=2, progress=False)


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def assert_same(a: Bank, b: Bank) -> None:
    np.testing.assert_array_equal(a.outputs, b.outputs)
    np.testing.assert_array_equal(a.second_outputs, b.second_outputs)
    np.testing.assert_array_equal(a.masks, b.masks)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """A disk on which no file can grow beyond ``size`` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_second_call_reads_everything(trained: Problem, tmp_path: Path) -> None:
    first, before = bank(trained, tmp_path), stamps(tmp_path)
    assert len(before) == 3
    assert_same(bank(trained, tmp_path), first)
    assert_same(first, bank(trained, None))
    assert stamps(tmp_path) == before


def test_more_masks_reuse_the_chunks_that_are_there(trained: Problem, tmp_path: Path) -> None:
    bank(trained, tmp_path)
    before = stamps(tmp_path)
    bank(trained, tmp_path, replace(PLAN, masks=8))
    after = stamps(tmp_path)
    assert len(after) == 5
    assert before.items() <= after.items()


def test_a_second_repeat_reuses_the_second_order(trained: Problem, tmp_path: Path) -> None:
    bank(trained, tmp_path)
    before = stamps(tmp_path)
    bank(trained, tmp_path, replace(PLAN, repeats=2))
    assert len(stamps(tmp_path)) == len(before) + 1


DAMAGE = {
    "truncated": lambda content: content[:-7],
    "empty": lambda content: b"",
    "flipped": lambda content: content[:-9] + bytes([content[-9] ^ 1]) + content[-8:],
    "foreign": lambda content: b"something else",
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_chunk_is_trained_again(
    damage, trained: Problem, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bank(trained, tmp_path)
    victim = sorted(tmp_path.iterdir())[0]
    content = victim.read_bytes()
    victim.write_bytes(damage(content))
    with caplog.at_level(logging.WARNING):
        assert_same(bank(trained, tmp_path), expected)
    assert f"{victim} is damaged" in caplog.text
    assert victim.read_bytes() == content


def test_a_chunk_under_the_name_of_another_is_not_used(trained: Problem, tmp_path: Path) -> None:
    expected = bank(trained, tmp_path)
    first, second, *_ = sorted(tmp_path.iterdir())
    second.write_bytes(first.read_bytes())
    assert_same(bank(trained, tmp_path), expected)


def test_what_a_killed_process_left_is_removed_in_time(tmp_path: Path) -> None:
    old, new = unfinished(tmp_path / "a"), unfinished(tmp_path / "b")
    old.touch()
    new.touch()
    past = new.stat().st_mtime - 2 * ABANDONED_AFTER
    os.utime(old, (past, past))
    ChunkStore(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


@pytest.mark.parametrize("parent", ["file", "proc"])
def test_an_unusable_folder_is_named(trained: Problem, tmp_path: Path, parent: str) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    folder = (file if parent == "file" else Path("/proc")) / "bank"
    with pytest.raises(StoreError, match=f"{folder}.*finished chunks are kept"):
        bank(trained, folder)


def test_a_full_disk_keeps_what_is_finished(trained: Problem, tmp_path: Path) -> None:
    bank(trained, tmp_path)
    before = stamps(tmp_path)
    longer = replace(PLAN, masks=8)
    with largest_file(300), pytest.raises(StoreError, match="finished chunks are kept"):
        bank(trained, tmp_path, longer)
    assert stamps(tmp_path) == before
    assert_same(bank(trained, tmp_path, longer), bank(trained, None, longer))


def changed(problem: Problem) -> dict[str, Problem]:
    """Problems that differ from ``problem`` in one thing that determines the outputs."""
    assert problem.initial is not None
    x, y = problem.train
    nudged = x.clone()
    nudged[3, 1] += 1e-6
    relabelled = y.clone()
    relabelled[0] = (relabelled[0] + 1) % 3
    start = {**problem.initial, "0.bias": problem.initial["0.bias"] + 1e-3}
    query = (problem.query[0][:-1], problem.query[1][:-1])
    return {
        "lr": with_recipe(problem, replace(RECIPE, lr=0.11)),
        "order": with_recipe(problem, replace(RECIPE, seed=8)),
        "dtype": with_recipe(problem, replace(RECIPE, dtype="float32")),
        "input": replace(problem, train=(nudged, y)),
        "label": replace(problem, train=(x, relabelled)),
        "query": replace(problem, query=query),
        "initial": replace(problem, initial=start),
        "activation": replace(problem, model=_with_tanh(problem)),
    }


def _with_tanh(problem: Problem) -> torch.nn.Module:
    model = CASES["tanh"]().model
    model.load_state_dict(problem.model.state_dict())
    return model


def test_whatever_determines_the_outputs_changes_the_name(trained: Problem) -> None:
    problems = [trained, *changed(trained).values()]
    assert all(problem.initial is not None for problem in problems)
    names = {study_fingerprint(p, PLAN, dict(p.initial or {})) for p in problems}
    assert len(names) == len(problems)


def test_what_a_forward_pass_computes_changes_the_name(
    trained: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal structure and parameters, other source code."""
    start = dict(trained.initial or {})
    before = study_fingerprint(trained, PLAN, start)
    monkeypatch.setattr(torch.nn.GELU, "forward", lambda self, x: torch.sin(x))
    assert study_fingerprint(trained, PLAN, start) != before


def test_the_name_of_a_problem_does_not_matter(trained: Problem) -> None:
    start = dict(trained.initial or {})
    renamed = replace(trained, name="other", display={"a": 1})
    assert study_fingerprint(renamed, PLAN, start) == study_fingerprint(trained, PLAN, start)


def test_one_training_leaves_its_checkpoints_too(trained: Problem, tmp_path: Path) -> None:
    last = trained.recipe.epochs
    retrain_bank(trained, PLAN, tmp_path, chunk_size=2, progress=False, checkpoints=(0, last - 1))
    before = stamps(tmp_path)
    assert len(before) == 9
    for epoch in (0, last - 1, last):
        early = replace(trained, recipe=replace(trained.recipe, checkpoint=epoch))
        assert_same(bank(early, tmp_path), bank(early, None))
    assert stamps(tmp_path) == before


@pytest.mark.parametrize("epoch", [-1, 10**6])
def test_a_checkpoint_outside_the_training_is_refused(trained: Problem, epoch: int) -> None:
    with pytest.raises(ProblemError, match=f"checkpoints must be among .* got \\[{epoch}\\]"):
        retrain_bank(trained, PLAN, progress=False, checkpoints=(epoch,))


def test_parts_make_the_whole(trained: Problem, tmp_path: Path) -> None:
    plan = BankPlan(masks=600, second_order_masks=2)  # two chunks and the second order
    quick = replace(trained, recipe=replace(trained.recipe, checkpoint=0))
    models = [retrain_part(quick, plan, tmp_path, part, 2) for part in range(2)]
    before = stamps(tmp_path)
    assert sum(models) == 602
    assert min(models) > 0
    assert_same(
        retrain_bank(quick, plan, tmp_path, progress=False),
        retrain_bank(quick, plan, progress=False),
    )
    assert stamps(tmp_path) == before
    with pytest.raises(ProblemError, match="part must lie in 0 … 1, got 2"):
        retrain_part(quick, plan, tmp_path, 2, 2)
