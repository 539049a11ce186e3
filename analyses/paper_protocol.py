"""What each choice of the paper's code costs, one change at a time from the controlled protocol.

python analyses/paper_protocol.py --out paper-protocol/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import OneNetwork, Study, main


@dataclass(frozen=True)
class PaperProtocol(OneNetwork):
    """From the controlled protocol to the paper's: a drop and a share for every choice.

    The choices: weights and biases as separate blocks, one Monte-Carlo sample for the Fisher
    factors, factored damping for K-FAC (exact damping for EK-FAC), truncated negative curvature.
    The claims are tested under both protocols.

    Examples:
        python analyses/paper_protocol.py --out paper/
    """

    epochs: tuple[int, ...] = (10, 100, 1000)
    """Checkpoints of one training."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        return Study(
            name="paper_protocol",
            title="From the controlled protocol to the paper's",
            description="One-sample factors, split biases, factored damping, truncated curvature.",
            cells=self.cells(settings, seeds, tiny, ladder=True),
            factor="epoch",
        )


if __name__ == "__main__":
    main(PaperProtocol)
