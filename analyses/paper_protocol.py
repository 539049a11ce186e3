"""What each choice of the paper's code costs, one change at a time from the controlled protocol.

python analyses/paper_protocol.py --out paper-protocol/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import Study, architectures, main


@dataclass(frozen=True)
class PaperProtocol:
    """From the controlled protocol to the paper's: a drop and a share for every choice.

    The choices: weights and biases as separate blocks, one Monte-Carlo sample for the Fisher
    factors, factored damping for K-FAC (exact damping for EK-FAC), truncated negative curvature.
    The claims are tested under both protocols.

    Examples:
        python analyses/paper_protocol.py --out paper/
    """

    hidden: tuple[int, ...] = (16, 16)
    """Widths of the hidden layers."""
    epochs: tuple[int, ...] = (10, 100, 1000)
    """Checkpoints of one training."""
    dataset: str = "digits"
    """Name or file, see `decompose problems`."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        return Study(
            name="paper_protocol",
            title="From the controlled protocol to the paper's",
            description="One-sample factors, split biases, factored damping, truncated curvature.",
            cells=architectures(
                [self.hidden],
                self.epochs,
                settings,
                dataset=self.dataset,
                seeds=seeds,
                ladder=True,
                tiny=tiny,
            ),
            factor="epoch",
        )


if __name__ == "__main__":
    main(PaperProtocol)
