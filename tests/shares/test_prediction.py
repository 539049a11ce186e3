"""Whether spectral error predicts attribution loss."""

import numpy as np
import pytest
from scipy import stats

from decomposition.shares.prediction import spectral_association
from decomposition.shares.steps import ShareError


def cells(count: int = 60):
    random = np.random.default_rng(43)
    loss = random.normal(size=count)
    return np.stack([loss + random.normal(size=count), random.normal(size=count)]), loss


def test_estimate_is_scipys_spearman() -> None:
    errors, loss = cells()
    found = spectral_association(errors, loss, resamples=200)
    expected = [stats.spearmanr(one, loss)[0] for one in errors]
    np.testing.assert_allclose(found.rho[:, 1], expected)


def test_a_related_metric_is_told_from_an_unrelated_one() -> None:
    errors, loss = cells()
    found = spectral_association(errors, loss)
    assert found.rho[0, 0] > 0.0
    assert found.rho[1, 0] < 0.0 < found.rho[1, 2]


def test_a_monotone_relation_is_one_in_every_resample() -> None:
    _, loss = cells()
    np.testing.assert_allclose(spectral_association(np.exp(loss)[None], loss).rho, 1.0)


def test_cells_of_one_node_do_not_count_as_many() -> None:
    errors, loss = cells()
    tripled = np.repeat(errors, 3, axis=1), np.repeat(loss, 3)
    naive = spectral_association(*tripled).rho[0]
    grouped = spectral_association(*tripled, groups=np.repeat(np.arange(60), 3))
    assert (grouped.cells, grouped.groups) == (180, 60)
    assert np.ptp(grouped.rho[0]) > 1.4 * np.ptp(naive)


def test_a_constant_metric_has_no_correlation() -> None:
    errors, loss = cells()
    errors[1] = 2.0
    assert np.isnan(spectral_association(errors, loss).rho[1]).all()


def test_a_cell_without_loss_must_be_left_out() -> None:
    errors, loss = cells()
    loss[3] = np.nan
    with pytest.raises(ShareError, match="not finite"):
        spectral_association(errors, loss)
