"""How the steps' costs change with label noise.

python analyses/label_noise.py --out label-noise/
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decomposition.settings import Settings
from decomposition.study import OneNetwork, Study, main


@dataclass(frozen=True)
class LabelNoise(OneNetwork):
    """A growing part of the training labels wrong: what each step costs, per 0.1 of it.

    The labels that are wrong at 0.1 are wrong at 0.2 too.

    Examples:
        python analyses/label_noise.py --out label-noise/
    """

    noise: tuple[float, ...] = (0.0, 0.1, 0.2, 0.4)
    """Fraction of the labels replaced by another class."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        cells = tuple(
            replace(one, variant=replace(one.variant, label_noise=noise))
            for noise in (self.noise[:2] if tiny else self.noise)
            for one in self.cells(settings, seeds, tiny)
        )
        return Study(
            name="label_noise",
            title="Label noise",
            description="A fraction of the training labels replaced by another class.",
            cells=cells,
            factor="label_noise",
        )


if __name__ == "__main__":
    main(LabelNoise)
