"""How the steps' costs change along one training.

python analyses/training_time.py --out training-time/
"""

from __future__ import annotations

from dataclasses import dataclass

from decomposition.settings import Settings
from decomposition.study import OneNetwork, Study, main


@dataclass(frozen=True)
class TrainingTime(OneNetwork):
    """Many checkpoints of one training: what each step costs, per doubling of epochs.

    Examples:
        python analyses/training_time.py --out training-time/
    """

    epochs: tuple[int, ...] = (3, 10, 30, 100, 300, 1000)
    """Checkpoints of one training."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        return Study(
            name="training_time",
            title="Along one training",
            description="Checkpoints of one training, its schedule spanning all of them.",
            cells=self.cells(settings, seeds, tiny),
            factor="epoch",
        )


if __name__ == "__main__":
    main(TrainingTime)
