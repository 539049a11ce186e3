"""The controlled protocol: exact, sampling-free factors and one common damping policy.

python analyses/controlled_protocol.py --out controlled/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import Study, architectures, main


@dataclass(frozen=True)
class ControlledProtocol:
    """The chain with all else held fixed: exact factors, weights with biases, one policy.

    `paper_protocol` adds what the published code does, one choice at a time.

    Examples:
        python analyses/controlled_protocol.py --out controlled/
    """

    hidden: tuple[int, ...] = (16, 16)
    """Widths of the hidden layers."""
    epochs: tuple[int, ...] = (10, 100, 1000)
    """Checkpoints of one training."""
    dataset: str = "digits"
    """Name or file, see `decompose problems`."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        return Study(
            name="controlled_protocol",
            title="The controlled protocol",
            description="Exact factors; one policy for damping on every rung.",
            cells=architectures(
                [self.hidden],
                self.epochs,
                settings,
                dataset=self.dataset,
                seeds=seeds,
                tiny=tiny,
            ),
            factor="epoch",
        )


if __name__ == "__main__":
    main(ControlledProtocol)
