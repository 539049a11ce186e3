"""Counter-based draws: a row is the same in every batch, and no two streams are alike."""

from __future__ import annotations

import scipy.stats
import torch

from decomposition.curvature.counter_rng import uniforms


def test_a_row_does_not_depend_on_the_batch_it_is_in() -> None:
    together = uniforms((3, 0), 0, 10, 6)
    apart = torch.cat([uniforms((3, 0), first, 2, 6) for first in range(0, 10, 2)])
    assert torch.equal(apart, together)


def test_streams_of_other_seeds_and_draws_differ() -> None:
    streams = [uniforms(key, 0, 5, 3) for key in ((0, 0), (0, 1), (1, 0))]
    for i, one in enumerate(streams):
        for other in streams[i + 1 :]:
            assert not torch.isclose(one, other).any()


def test_draws_are_uniform_in_the_open_interval() -> None:
    u = uniforms((0, 0), 0, 5000, 4)
    assert float(u.min()) > 0.0
    assert float(u.max()) < 1.0
    assert scipy.stats.kstest(u.flatten().numpy(), "uniform").pvalue > 0.01
    correlation = torch.corrcoef(u.T) - torch.eye(4)
    assert float(correlation.abs().max()) < 3 / 5000**0.5
