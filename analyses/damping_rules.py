"""Which damping to take where nothing can be retrained, and what it costs.

python analyses/damping_rules.py --out damping_rules/
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from decomposition.settings import Settings
from decomposition.study import Study, architectures, main


@dataclass(frozen=True)
class DampingRules:
    """Rules that say λ from a rung alone, against the λ that retrained models prefer.

    The regret of a rule is the LDS of each rung at its tuned λ minus that under the rule. The
    report says on which rungs a rule is safe in every cell, and where it costs most.

    Examples:
        python analyses/damping_rules.py --out damping_rules/
        python analyses/damping_rules.py --rules layer_mean:0.01,layer_mean --out c/
    """

    datasets: tuple[str, ...] = ("digits", "wine")
    """Names or files, see `decompose problems`."""
    hidden: tuple[str, ...] = ("16", "16-16", "32")
    """Widths of the hidden layers of every network, joined by hyphens."""
    epochs: tuple[int, ...] = (10, 100, 300)
    """Checkpoints of one training."""
    rules: str = (
        "layer_mean,layer_mean:1,layer_mean:10,mean,mean:1,mean:10,fixed,fixed:1e-2,factored,"
        "pseudo_inverse,pseudo_inverse:1e-6,truncated"
    )
    """See `decompose run --help`."""

    def study(self, settings: Settings, seeds: int, tiny: bool) -> Study:
        networks = [[int(width) for width in one.split("-")] for one in self.hidden]
        return Study(
            name="damping_rules",
            title="Damping without retraining",
            description="Rules of damping over problems, architectures and training times.",
            cells=tuple(
                cell
                for dataset in self.datasets
                for cell in architectures(
                    networks[:1] if tiny else networks,
                    self.epochs,
                    replace(settings, rules=self.rules),
                    dataset=dataset,
                    seeds=seeds,
                    tiny=tiny,
                )
            ),
        )


if __name__ == "__main__":
    main(DampingRules)
