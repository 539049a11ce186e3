"""One cell of a study: a problem at one checkpoint, with everything that is computed about it.

A cell is configuration alone; two cells with equal configuration are the same cell, whichever
study they stand in.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from decomposition.checks import Rule, check_fields, flag, instance, seed, several, text, whole
from decomposition.errors import ProblemError
from decomposition.problem import Problem
from decomposition.problems import make_problem
from decomposition.problems.variant import Variant
from decomposition.recipe import Recipe
from decomposition.settings import Settings

RULES: dict[str, Rule] = {
    "dataset": text,
    "variant": instance(Variant),
    "recipe": instance(Recipe),
    "settings": instance(Settings),
    "seed": seed,
    "checkpoints": several(whole()),
    "ladder": flag,
}
"""What each field of a Cell may be."""


@dataclass(frozen=True)
class Cell:
    """A data set, an architecture, a recipe up to a checkpoint, and what to compute there.

    Raises:
        ProblemError: a value of the wrong type, or a checkpoint beyond the training.
    """

    dataset: str = "digits"
    """Built-in problem, or a file as ``load_problem`` reads it."""
    variant: Variant = field(default_factory=Variant)
    """Architecture, number of examples, label noise."""
    recipe: Recipe = field(default_factory=Recipe)
    """Training; ``recipe.checkpoint`` is where the model is taken."""
    settings: Settings = field(default_factory=Settings)
    """What is computed."""
    seed: int = 0
    """Of the problem: split, initialisation, order of examples."""
    checkpoints: tuple[int, ...] = ()
    """Epochs at which the study takes models from this same training."""
    ladder: bool = False
    """Also score the rungs that lead to the paper's protocol."""

    def __post_init__(self) -> None:
        """Check every value once."""
        check_fields(self, RULES, ProblemError)
        for epoch in self.checkpoints:
            if epoch > self.recipe.epochs:
                raise ProblemError(
                    f"a checkpoint after {epoch} epochs lies outside the training of "
                    f"{self.recipe.epochs} epochs"
                )

    def at(self, epoch: int) -> Cell:
        """The cell of the same training at another checkpoint."""
        return replace(self, recipe=replace(self.recipe, checkpoint=epoch))

    def problem(self) -> Problem:
        """The problem, untrained."""
        return make_problem(self.dataset, self.seed, self.recipe, self.variant)

    @property
    def label(self) -> str:
        """What people are shown: what distinguishes the cell, in short."""
        variant, settings = self.variant, self.settings
        parts = [self.dataset, shape_of(variant), f"epoch {self.recipe.last_epoch}"]
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
        if self.seed:
            parts.append(f"seed {self.seed}")
        return ", ".join(part for part in parts if part)

    def config(self) -> dict[str, object]:
        """Everything that determines the result, as JSON-able values."""
        return {
            "dataset": self.dataset,
            "file": file_digest(self.dataset),
            "variant": asdict(self.variant),
            "recipe": asdict(self.recipe) | {"checkpoint": self.recipe.last_epoch},
            "settings": asdict(self.settings),
            "seed": self.seed,
            "ladder": self.ladder,
        }


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
    for name in (tail, spec.rpartition(":")[0]):  # csv:FILE, or FILE.py:function
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
