"""The paper's grid: every architecture and checkpoint of its digits experiments.

python analyses/paper_grid.py --out grid/
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decomposition import DecompositionError, Settings
from decomposition.study import PAPER_RECIPE, Scale, Study, architectures, main

RULES = "fixed:1e-4,fixed:1e-3,fixed:1e-2,truncated:1e-4:1e-6,pseudo_inverse:1e-4"
"""The dampings of the paper's code, its truncation, and the replication's pseudo-inverse."""
MASKS, REPEATS, MOMENTA = 100, 10, (0.0, 0.9)
"""As published, as far as that is known: which momentum was used is not."""


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
        python analyses/paper_grid.py --as-published --out published/
        python analyses/paper_grid.py --as-published --alphas 0.3 0.7 0.9 --widths 16 --out more/
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
    as_published: bool = False
    """Retrain as the paper does, as far as that is known: independent initialisation and order,
    100 masks, 10 repeats, the last batch of an epoch dropped, with and without momentum; and
    score its fixed dampings, its truncation and a pseudo-inverse as rules. What else is given on
    the command line goes before."""
    alphas: tuple[float, ...] = ()
    """Fractions of the training examples in a subset, each a cell of its own; in place of
    --alpha."""
    momenta: tuple[float, ...] = ()
    """Momenta of SGD, each a cell of its own; default 0, as published 0 and 0.9."""
    drop_last: bool | None = None
    """Leave out the last batch of an epoch where it is smaller; default False, as published True.
    """

    def scaled(self, scale: Scale, tiny: bool) -> Scale:
        if self.alphas and scale.alpha is not None:
            given = " ".join(f"{alpha:g}" for alpha in self.alphas)
            raise DecompositionError(
                f"--alpha {scale.alpha:g} and --alphas {given} are both given: give one of them"
            )
        if not self.as_published:
            return scale
        scale = scale.otherwise(randomness="independent")
        return scale if tiny else scale.otherwise(masks=MASKS, repeats=REPEATS)

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        if self.as_published:
            settings = replace(settings, rules=f"{settings.rules},{RULES}")
        narrow = self.widths[0]
        hidden = [(narrow,) * depth for depth in self.depths]
        hidden += [(width,) for width in self.widths[1:]]
        drop = self.as_published if self.drop_last is None else self.drop_last
        cells = tuple(
            cell
            for alpha in self.alphas or (settings.alpha,)
            for momentum in self.momenta or (MOMENTA if self.as_published else MOMENTA[:1])
            for cell in architectures(
                hidden,
                self.epochs,
                replace(settings, alpha=alpha),
                activation=self.activation,
                seeds=seeds,
                recipe=replace(PAPER_RECIPE, momentum=momentum, drop_last=drop),
                ladder=self.ladder,
                tiny=tiny,
            )
        )
        how = ", retrained as published" if self.as_published else ""
        return Study(
            name="paper_grid",
            title=f"The paper's grid on digits{how}",
            description="Depth, width and training time of tanh networks trained by SGD.",
            cells=cells,
        )


if __name__ == "__main__":
    main(PaperGrid)
