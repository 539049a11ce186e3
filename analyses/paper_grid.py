"""The paper's grid: every architecture and checkpoint of its digits experiments.

python analyses/paper_grid.py --out grid/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import Study, architectures, main


@dataclass(frozen=True)
class PaperGrid:
    """The grid of the paper's controlled experiments, and its claims tested in every cell.

    Digits; tanh networks of depth 1, 4 and 8 at width 16 and of width 32, 64 and 128 at depth 1;
    SGD at 0.03 with a cosine schedule over 1,000 epochs, batches of 32, no momentum and no decay;
    checkpoints after 10, 100 and 1,000 epochs. 1,000 subsets with shared randomness resolve
    differences of about 0.01 in LDS between neighbouring rungs; one training of each subset serves
    all three checkpoints.

    Examples:
        python analyses/paper_grid.py --out grid/
        python analyses/paper_grid.py --alpha 0.9 --out grid-0.9/
        python analyses/paper_grid.py --randomness independent --out independent/
        python analyses/paper_grid.py --backend dask --address tcp://host:8786 --out /shared/grid
    """

    depths: tuple[int, ...] = (1, 4, 8)
    """Hidden layers, at the first width."""
    widths: tuple[int, ...] = (16, 32, 64, 128)
    """Widths; those after the first at depth 1."""
    epochs: tuple[int, ...] = (10, 100, 1000)
    """Checkpoints of one training."""
    activation: str = "tanh"
    """Of the hidden layers."""
    ladder: bool = True
    """Test the claims under the paper's own protocol too (its rungs cost little here)."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        narrow = self.widths[0]
        hidden = [(narrow,) * depth for depth in self.depths]
        hidden += [(width,) for width in self.widths[1:]]
        return Study(
            name="paper_grid",
            title="The paper's grid on digits",
            description="Depth, width and training time of tanh networks trained by SGD.",
            cells=architectures(
                hidden,
                self.epochs,
                settings,
                activation=self.activation,
                seeds=seeds,
                ladder=self.ladder,
                tiny=tiny,
            ),
        )


if __name__ == "__main__":
    main(PaperGrid)
