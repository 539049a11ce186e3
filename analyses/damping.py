"""What one common damping costs on every rung, over eight decades of it.

python analyses/damping.py --out damping/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import OneNetwork, Study, main


@dataclass(frozen=True)
class Damping(OneNetwork):
    """One λ for all rungs: levels and what each step costs, against λ.

    λ is in multiples of tr G / min(P, N·C).

    The trend is per decade of λ over the whole grid; the curves say where it bends.

    Examples:
        python analyses/damping.py --out damping/
    """

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        return Study(
            name="damping",
            title="Damping",
            description="The same λ on every rung.",
            cells=self.cells(settings, seeds, tiny),
            factor="multiplier",
        )


if __name__ == "__main__":
    main(Damping)
