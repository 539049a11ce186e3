"""What one common damping costs on every rung, over eight decades of it.

python analyses/damping.py --out damping/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import Study, architectures, main


@dataclass(frozen=True)
class Damping:
    """One λ for all rungs: levels and what each step costs, against λ in multiples of tr G / P.

    The trend is per decade of λ over the whole grid; the curves say where it bends.

    Examples:
        python analyses/damping.py --out damping/
    """

    hidden: tuple[int, ...] = (16, 16)
    """Widths of the hidden layers."""
    epochs: tuple[int, ...] = (100,)
    """Checkpoints of one training."""
    dataset: str = "digits"
    """Name or file, see `decompose problems`."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        return Study(
            name="damping",
            title="Damping",
            description="The same λ on every rung.",
            cells=architectures(
                [self.hidden], self.epochs, settings, dataset=self.dataset, seeds=seeds, tiny=tiny
            ),
            factor="multiplier",
        )


if __name__ == "__main__":
    main(Damping)
