"""How the steps' costs change with the number of training examples.

python analyses/dataset_size.py --out dataset-size/
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decomposition.settings import Settings
from decomposition.study import OneNetwork, Study, main


@dataclass(frozen=True)
class DatasetSize(OneNetwork):
    """One network on nested subsets of the data: what each step costs, per doubling of N.

    Epochs are scaled so that every cell makes as many updates as the largest one.

    Examples:
        python analyses/dataset_size.py --out dataset-size/
    """

    examples: tuple[int, ...] = (200, 400, 800, 1600)
    """Training examples; smaller sets are part of larger ones."""
    epochs: tuple[int, ...] = (100,)
    """Checkpoints of the training on the largest set."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        sizes = self.examples[:2] if tiny else self.examples
        cells = []
        for size in sizes:
            epochs = tuple(round(epoch * max(sizes) / size) for epoch in self.epochs)
            made = replace(self, epochs=epochs).cells(settings, seeds, tiny)
            cells += [replace(one, variant=replace(one.variant, examples=size)) for one in made]
        return Study(
            name="dataset_size",
            title="Number of training examples",
            description="Nested subsets of the training data, the same number of updates.",
            cells=tuple(cells),
            factor="examples",
        )


if __name__ == "__main__":
    main(DatasetSize)
