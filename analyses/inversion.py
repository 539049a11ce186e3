"""What it changes how the damping enters the inverse: whole rungs, layers, factors, or a cut.

python analyses/inversion.py --out inversion/
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decomposition.settings import Settings
from decomposition.study import OneNetwork, Study, main


@dataclass(frozen=True)
class Inversion(OneNetwork):
    """One network, its rungs inverted in several ways at every λ: levels and what each step costs.

    The base model, its rungs and the bank are the same everywhere; only how λ enters differs.
    Whether a claim holds is told under each of them, at every λ (`/claims/map`).

    Examples:
        python analyses/inversion.py --out inversion/
        python analyses/inversion.py --inversions damped truncated:1e-4 --out cut/
    """

    epochs: tuple[int, ...] = (10, 100, 1000)
    """Checkpoints of one training."""
    inversions: tuple[str, ...] = ("damped", "per_layer", "factored", "pseudo_inverse", "truncated")
    """See `decompose run --help`."""
    ladder: bool = False
    """Test the claims under the paper's own protocol too."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        return Study(
            name="inversion",
            title="How damping enters the inverse",
            description="The same rungs and retrained models under several inversions.",
            cells=tuple(
                replace(one, settings=replace(one.settings, inversion=inversion))
                for inversion in self.inversions
                for one in self.cells(settings, seeds, tiny, ladder=self.ladder)
            ),
        )


if __name__ == "__main__":
    main(Inversion)
