"""A cell's name: everything that changes its numbers changes it, and nothing else does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from decomposition import source
from decomposition.chain import KFAC
from decomposition.errors import DecompositionError, ProblemError
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe
from decomposition.settings import Settings
from decomposition.study import Backend, Study, run_study
from decomposition.study.cell import Cell, file_digest, shape_of
from decomposition.study.tasks import CellTask, RetrainTask, trainings

CELL = Cell(variant=Variant(hidden=(8,), activation="tanh"), recipe=Recipe(epochs=4))
CHANGES = [
    {"dataset": "wine"},
    {"variant": Variant(hidden=(9,), activation="tanh")},
    {"variant": Variant(hidden=(8,), activation="relu")},
    {"variant": Variant(hidden=(8,), activation="tanh", label_noise=0.1)},
    {"recipe": Recipe(epochs=4, checkpoint=2)},
    {"recipe": Recipe(epochs=4, lr=0.02)},
    {"settings": Settings(alpha=0.4)},
    {"settings": Settings(damping_points=5)},
    {"seed": 1},
    {"ladder": True},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_another_configuration_is_another_cell(change: dict) -> None:
    assert CellTask(cell=replace(CELL, **change)).key() != CellTask(cell=CELL).key()


def test_equal_configurations_are_one_cell() -> None:
    last = replace(CELL, recipe=replace(CELL.training, checkpoint=4))
    assert CellTask(cell=last).key() == CellTask(cell=CELL).key()
    assert CellTask(cell=replace(CELL, checkpoints=(1, 2))).key() == CellTask(cell=CELL).key()
    assert CellTask(cell=CELL, predicted=3.0, peak=5).key() == CellTask(cell=CELL).key()


@pytest.mark.parametrize("part", ["curvature/kronecker.py", "scores/lds.py", "damping.py"])
def test_changed_code_is_another_cell(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = CellTask(cell=CELL).key()
    read = Path.read_text
    changed = source.PACKAGE / part

    def edited(path: Path, *args: str, **named: str) -> str:
        text = read(path, *args, **named)
        return text + "\nEDITED = 1\n" if path == changed else text

    source.source_hash.cache_clear()
    monkeypatch.setattr(Path, "read_text", edited)
    assert CellTask(cell=CELL).key() != before
    source.source_hash.cache_clear()


def test_checkpoints_of_one_schedule_share_their_training() -> None:
    cells = [CELL.at(epoch) for epoch in (1, 4, 2)]
    (shared,) = trainings(cells)
    assert shared.training.last_epoch == 4
    assert shared.checkpoints == (1, 2)
    other = replace(CELL, variant=Variant(hidden=(9,), activation="tanh"))
    assert len(trainings([*cells, other])) == 2


def test_what_only_scores_does_not_retrain() -> None:
    (one,) = trainings([CELL])
    (other,) = trainings([replace(CELL, settings=Settings(damping_points=5), ladder=True)])
    assert (
        RetrainTask(cell=one, part=0, parts=2).key()
        == RetrainTask(cell=other, part=0, parts=2).key()
    )


def test_a_file_counts_with_its_content(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b\n1,2\n")
    before = file_digest(f"csv:{path}?target=b")
    assert before == file_digest(f"csv:{path}?target=a")
    path.write_text("a,b\n1,3\n")
    assert file_digest(f"csv:{path}?target=b") != before
    assert file_digest("digits") == ""


def test_a_checkpoint_beyond_the_training_is_refused() -> None:
    with pytest.raises(ProblemError, match="after 9 epochs lies outside the training of 4"):
        replace(CELL, checkpoints=(9,))


@pytest.mark.parametrize(
    ("hidden", "shown"),
    [((16,), "16"), ((16,) * 8, "16×8"), ((64, 32), "64-32"), ((), "linear"), (None, "")],
)
def test_shapes_are_written_as_people_do(hidden: tuple[int, ...] | None, shown: str) -> None:
    assert shape_of(Variant(hidden=hidden)) == shown


def test_a_cell_does_not_depend_on_how_it_is_combined_or_shown() -> None:
    behind = CellTask(cell=CELL).code()
    assert {"pipeline.py", "problems/registry.py", "scores/lds.py"} <= set(behind)
    assert not [part for part in behind if part.startswith(("report", "cli", "run"))]
    after = {"shares/claims.py", "shares/group.py", "study/combine.py", "study/runner.py"}
    assert not after & set(behind)


MINE = """
import torch
from torch import nn
from decomposition import Problem, Recipe
from decomposition.curvature import ScaledIdentity

def problem(width: int = 2, seed: int = 0):
    torch.manual_seed(seed)
    x = torch.randn(20, 3)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 2))
    recipe = Recipe(epochs=3, batch_size=5)
    return Problem(model, nn.CrossEntropyLoss(), (x[:16], y[:16]), (x[16:], y[16:]), recipe=recipe)

def scaled(problem):
    return ScaledIdentity(problem.num_parameters, 2.0)
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    folder = tmp_path / "a folder of a name as long" / "as those of build machines" / "for all"
    folder.mkdir(parents=True)
    path = folder / "mine.py"
    path.write_text(MINE)
    return path


def test_a_cell_may_be_a_problem_of_ones_own(mine: Path) -> None:
    cell = Cell(f"{mine}:problem?width=4")
    assert cell.problem().num_parameters == 3 * 4 + 4 + 4 * 2 + 2
    assert cell.training.epochs == 3
    assert "epoch 3" in cell.label
    again = Cell(f"{mine}:problem?width=5")
    assert CellTask(cell=cell).key() != CellTask(cell=again).key()


def test_its_seed_is_an_argument_of_its_function(mine: Path) -> None:
    one, other = (Cell(f"{mine}:problem", seed=seed).problem() for seed in (0, 1))
    assert bool((one.train[0] != other.train[0]).any())


def test_another_file_is_another_cell(mine: Path) -> None:
    cell = Cell(f"{mine}:problem")
    before = CellTask(cell=cell).key()
    mine.write_text(MINE.replace("epochs=3", "epochs=4"))
    assert CellTask(cell=cell).key() != before


def test_rungs_of_ones_own_are_named_by_their_file(mine: Path) -> None:
    cell = Cell(extra={"twice": f"{mine}:scaled", "apart": KFAC(separate_bias=True)})  # type: ignore[arg-type]
    rungs = cell.rungs()
    assert list(rungs) == ["twice", "apart"]
    assert CellTask(cell=cell).key() != CellTask(cell=Cell()).key()
    with pytest.raises(DecompositionError, match="the chain uses itself"):
        Cell(extra=(("ggn", "mine.py:scaled"),))


def test_a_trained_cell_of_ones_own_is_computed_in_a_study(mine: Path, tmp_path: Path) -> None:
    settings = Settings(
        masks=12, second_order_masks=4, resamples=100, damping_points=3, detail=False
    )
    cells = tuple(Cell(f"{mine}:problem?width={width}", settings=settings) for width in (2, 3))
    tree = run_study(
        Study("own", "Own", "Widths.", cells),
        tmp_path / "out",
        backend=Backend("sequential"),
        progress=False,
    )
    assert tree is not None
    assert tree["shares"]["level"].sizes["cell"] == 2
    assert "mine.py:problem?width=2" in str(tree["cells"]["label"].values[0])
