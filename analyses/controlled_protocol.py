"""The controlled protocol: exact, sampling-free factors and one common damping policy.

python analyses/controlled_protocol.py --out controlled/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import OneNetwork, Study, main


@dataclass(frozen=True)
class ControlledProtocol(OneNetwork):
    """The chain with all else held fixed: exact factors, weights with biases, one policy.

    `paper_protocol` adds what the published code does, one choice at a time.

    Examples:
        python analyses/controlled_protocol.py --out controlled/
    """

    epochs: tuple[int, ...] = (10, 100, 1000)
    """Checkpoints of one training."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        return Study(
            name="controlled_protocol",
            title="The controlled protocol",
            description="Exact factors; one policy for damping on every rung.",
            cells=self.cells(settings, seeds, tiny),
            factor="epoch",
        )


if __name__ == "__main__":
    main(ControlledProtocol)
