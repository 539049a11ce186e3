"""How the steps' costs change with the depth of the network.

python analyses/depth.py --out depth/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import Study, architectures, main


@dataclass(frozen=True)
class Depth:
    """Networks of one width: what each step costs, per doubling of the number of hidden layers.

    Examples:
        python analyses/depth.py --out depth/
    """

    depths: tuple[int, ...] = (1, 2, 4, 8)
    """Hidden layers."""
    width: int = 16
    """Of each."""
    epochs: int = 300
    """Length of the training; plain SGD needs long ones for deep networks."""
    dataset: str = "digits"
    """Name or file, see `decompose problems`."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        hidden = [(self.width,) * depth for depth in (self.depths[:2] if tiny else self.depths)]
        return Study(
            name="depth",
            title="Depth",
            description=f"Hidden layers of width {self.width}, {self.epochs} epochs.",
            cells=architectures(
                hidden, [self.epochs], settings, dataset=self.dataset, seeds=seeds, tiny=tiny
            ),
            factor="depth",
        )


if __name__ == "__main__":
    main(Depth)
