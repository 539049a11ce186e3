"""How the steps' costs change with the width of the network.

python analyses/width.py --out width/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import Study, architectures, main


@dataclass(frozen=True)
class Width:
    """Networks of one hidden layer: what each step costs, per doubling of the width.

    Examples:
        python analyses/width.py --out width/
        python analyses/width.py --widths 4 8 16 32 --dataset wine --out wine-width/
    """

    widths: tuple[int, ...] = (8, 16, 32, 64)
    """Hidden units."""
    epochs: int = 100
    """Length of the training."""
    dataset: str = "digits"
    """Name or file, see `decompose problems`."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        hidden = [(width,) for width in (self.widths[:2] if tiny else self.widths)]
        return Study(
            name="width",
            title="Width",
            description=f"One hidden layer, {self.epochs} epochs.",
            cells=architectures(
                hidden, [self.epochs], settings, dataset=self.dataset, seeds=seeds, tiny=tiny
            ),
            factor="width",
        )


if __name__ == "__main__":
    main(Width)
