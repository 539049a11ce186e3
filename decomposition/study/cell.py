"""One cell of a study: a problem at one checkpoint, with everything that is computed about it.

A cell is configuration alone; two cells with equal configuration are the same cell, whichever
study they stand in. Its problem is a built-in one or a data file, of which a variant may change
network and data, or what a function in a file of the user's own returns.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from decomposition.chain.build import Approximation, check_extra
from decomposition.chain.paper_protocol import ladder_rungs
from decomposition.chain.rungs import Rung
from decomposition.checks import (
    Rule,
    Unfit,
    check_fields,
    flag,
    instance,
    number,
    optional,
    seed,
    several,
    text,
    whole,
)
from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems import make_problem
from decomposition.problems.registry import python_function
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe
from decomposition.settings import Settings

MEMORY = 64.0
"""GiB that the curvature of a cell may take, if the cell does not say: P up to 30,000 are dense."""


def _named_rungs(value: Any) -> tuple[tuple[str, Rung | str], ...]:
    pairs = value.items() if isinstance(value, dict) else value
    try:
        if not isinstance(value, dict | tuple | list):  # an empty tensor has no pairs either
            raise TypeError
        found = tuple((name, rung) for name, rung in pairs)
    except (TypeError, ValueError):
        raise Unfit("hold pairs of a name and a rung", value) from None
    for _, rung in found:
        if not isinstance(rung, Rung | str):
            raise Unfit("hold rungs of decomposition.chain.rungs, or file.py:function", rung)
    return found


RULES: dict[str, Rule] = {
    "dataset": text,
    "variant": instance(Variant),
    "recipe": optional(instance(Recipe)),
    "settings": instance(Settings),
    "seed": seed,
    "checkpoints": several(whole()),
    "ladder": flag,
    "extra": _named_rungs,
    "bank": optional(text),
    "memory": number(0, above=True),
}
"""What each field of a Cell may be."""


@dataclass(frozen=True)
class Cell:
    """A data set, an architecture, a recipe up to a checkpoint, and what to compute there.

    Raises:
        ProblemError: a value of the wrong type, or a checkpoint beyond the training.
    """

    dataset: str = "digits"
    """Built-in problem, data file, or ``file.py:function?argument=value``, as ``load_problem``
    reads it."""
    variant: Variant = field(default_factory=Variant)
    """Architecture, number of examples, label noise; a function of the user's own takes none."""
    recipe: Recipe | None = None
    """Training; ``recipe.checkpoint`` is where the model is taken. None: the problem's own."""
    settings: Settings = field(default_factory=Settings)
    """What is computed."""
    seed: int = 0
    """Of the problem: split, initialisation, order of examples; a function of the user's own takes
    it as an argument of this name."""
    checkpoints: tuple[int, ...] = ()
    """Epochs at which the study takes models from this same training."""
    ladder: bool = False
    """Also score the rungs that lead to the paper's protocol."""
    extra: tuple[tuple[str, Rung | str], ...] = ()
    """Rungs beside the chain, as pairs or a dict: a name, and a rung of decomposition.chain.rungs
    or ``file.py:function`` for one of the user's own."""
    bank: str | None = None
    """File of models retrained elsewhere, as ``run`` takes it; nothing is retrained."""
    memory: float = MEMORY
    """GiB that its curvature may take on any machine: what does not fit takes other forms."""

    def __post_init__(self) -> None:
        """Check every value once."""
        check_fields(self, RULES, ProblemError)
        check_extra({name: _unused for name, _ in self.extra})
        for epoch in self.checkpoints:
            if epoch > self.training.epochs:
                raise ProblemError(
                    f"a checkpoint after {epoch} epochs lies outside the training of "
                    f"{self.training.epochs} epochs"
                )

    @property
    def training(self) -> Recipe:
        """The recipe, the problem's own if the cell names none."""
        return _own_recipe(self) if self.recipe is None else self.recipe

    @property
    def momentum(self) -> float:
        """That of SGD; 0 for other optimisers, which have none."""
        return self.training.momentum if self.training.optimizer == "sgd" else 0.0

    def rungs(self) -> dict[str, Approximation]:
        """Rungs beside the chain, by name.

        Raises:
            ProblemError: a file or function that is not there.
        """
        found: dict[str, Approximation] = dict(ladder_rungs(self.seed)) if self.ladder else {}
        for name, rung in self.extra:
            found[name] = rung if isinstance(rung, Rung) else python_function(rung)
        return found

    def at(self, epoch: int) -> Cell:
        """The cell of the same training at another checkpoint."""
        return replace(self, recipe=replace(self.training, checkpoint=epoch))

    def problem(self) -> Problem:
        """The problem, untrained."""
        return make_problem(self.dataset, self.seed, self.recipe, self.variant)

    @property
    def label(self) -> str:
        """What people are shown: what distinguishes the cell, in short."""
        variant, settings = self.variant, self.settings
        parts = [self.dataset, shape_of(variant), f"epoch {self.training.last_epoch}"]
        if self.recipe is not None and self.momentum:
            parts.append(f"momentum {self.momentum:g}")
        if settings.alpha != 0.5:
            parts.append(f"α = {settings.alpha:g}")
        if variant.examples is not None:
            parts.append(f"{variant.examples} examples")
        if variant.label_noise:
            parts.append(f"label noise {variant.label_noise:g}")
        if settings.randomness != "shared":
            parts.append(settings.randomness)
        if settings.target != "loss":
            parts.append(settings.target)
        if settings.inversion != Settings.inversion:
            parts.append(settings.inversion)
        if self.seed:
            parts.append(f"seed {self.seed}")
        return ", ".join(part for part in parts if part)

    def config(self) -> dict[str, object]:
        """Everything that determines the result, as JSON-able values."""
        return {
            "dataset": self.dataset,
            "file": file_digest(self.dataset),
            "variant": asdict(self.variant),
            "recipe": asdict(self.training) | {"checkpoint": self.training.last_epoch},
            "settings": asdict(self.settings),
            "seed": self.seed,
            "ladder": self.ladder,
            "extra": [
                [name, rung if isinstance(rung, str) else repr(rung), _file_of(rung)]
                for name, rung in self.extra
            ],
            "bank": None if self.bank is None else file_digest(self.bank),
            "memory": self.memory,
        }


@cache
def _own_recipe(cell: Cell) -> Recipe:
    return cell.problem().recipe


def _file_of(rung: Rung | str) -> str:
    return file_digest(rung) if isinstance(rung, str) else ""


def _unused(problem: Problem) -> Any:
    """Stands in for a rung whose name is checked before its file is read."""
    raise NotImplementedError


def shape_of(variant: Variant) -> str:
    """Hidden widths as people write them: ``16×4`` for four layers of 16, ``64-32`` otherwise."""
    hidden = variant.hidden
    if not hidden:
        return "" if hidden is None else "linear"
    if len(hidden) > 2 and len(set(hidden)) == 1:
        return f"{hidden[0]}×{len(hidden)}"
    return "-".join(map(str, hidden))


def file_digest(dataset: str) -> str:
    """SHA-256 of the local file behind a data set, or "" for a built-in one.

    A folder counts with the names and contents of its files. A file that is absent is left to
    the loader, whose error says more.
    """
    spec = dataset.split("?", 1)[0]
    _, _, tail = spec.partition(":")
    for name in (tail, spec.rpartition(":")[0], spec):  # csv:FILE, FILE.py:function, FILE
        path = Path(name)
        if name and path.exists():
            files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
            digest = hashlib.sha256()
            for file in files:
                stat = file.stat()
                content = _content_digest(file, stat.st_mtime_ns, stat.st_size)
                digest.update(file.name.encode() + content)
            return digest.hexdigest()
    return ""


@lru_cache(maxsize=1024)
def _content_digest(file: Path, modified: int, size: int) -> bytes:
    """Read once a version of the file: every key of every cell asks for it."""
    return hashlib.sha256(file.read_bytes()).digest()
