"""How the steps' costs change with the fraction of the data that retrained models keep.

python analyses/subset_fraction.py --out subset-fraction/
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decomposition import DecompositionError, Settings
from decomposition.study import OneNetwork, Scale, Study, main


@dataclass(frozen=True)
class SubsetFraction(OneNetwork):
    """One network, retrained on larger and smaller subsets: what each step costs, per 0.1 of α.

    The base model and its rungs are the same everywhere; only the bank differs.

    Examples:
        python analyses/subset_fraction.py --out subset-fraction/
    """

    alphas: tuple[float, ...] = (0.3, 0.5, 0.7, 0.9)
    """Fractions of the training examples kept."""

    def scaled(self, scale: Scale, tiny: bool) -> Scale:
        if scale.alpha is not None:
            raise DecompositionError(
                f"--alpha {scale.alpha:g}: the fraction is what varies here; give --alphas, a list"
            )
        return scale

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        cells = tuple(
            replace(one, settings=replace(one.settings, alpha=alpha))
            for alpha in (self.alphas[:2] if tiny else self.alphas)
            for one in self.cells(settings, seeds, tiny)
        )
        return Study(
            name="subset_fraction",
            title="Fraction of the data in a subset",
            description="Retraining on subsets of another size.",
            cells=cells,
            factor="alpha",
        )


if __name__ == "__main__":
    main(SubsetFraction)
