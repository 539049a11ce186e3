"""The MNIST-sized perceptron: from MNIST's files, or from a stand-in that is named as one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from decomposition.chain import build_lattice
from decomposition.chain.plan import plan_chain
from decomposition.errors import ProblemError
from decomposition.problems import make_problem
from decomposition.problems.mnist import MEAN, STD, stand_in_images
from decomposition.scores.gradients import StreamedGradients, loss_gradients
from decomposition.scores.protocols import rank_bound
from decomposition.scores.scorers import scorers_of
from tests.problems.test_idx import NAMES, data, idx_bytes


def test_the_stand_in_has_the_scale_of_mnist() -> None:
    images, labels, *_ = stand_in_images()
    assert images.min() == 0
    assert images.max() == 255
    assert images.mean() / 255 == pytest.approx(MEAN, abs=0.05)
    assert images.std() / 255 == pytest.approx(STD, abs=0.05)
    assert len(images) == len(labels) == 6000
    assert np.bincount(labels).min() > 400


def test_queries_are_of_other_drawings_and_none_is_a_training_image() -> None:
    images, _, queries, _ = stand_in_images()
    known = {row.tobytes() for row in images}
    assert not any(row.tobytes() in known for row in queries)


def test_the_network_is_the_usual_one_and_the_name_says_stand_in() -> None:
    problem = make_problem("mnist_mlp")
    assert problem.name == "mnist_mlp (stand-in)"
    shapes = [tuple(p.shape) for p in problem.model.parameters()]
    assert shapes == [(128, 784), (128,), (10, 128), (10,)]
    assert isinstance(problem.model[1], torch.nn.ReLU)


def test_a_seed_draws_other_images_of_one_stand_in() -> None:
    one, other = (make_problem("mnist_mlp?examples=50&queries=5", seed) for seed in (0, 1))
    assert not torch.equal(one.train[0], other.train[0])
    assert one.num_queries == 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, array in zip(NAMES, (*data(60, 0), *data(20, 1)), strict=True):
        (tmp_path / name).write_bytes(idx_bytes(array))
    return tmp_path


def test_files_are_read_where_their_folder_is_given(folder: Path) -> None:
    problem = make_problem(f"mnist_mlp?folder={folder}&queries=7")
    assert problem.name == "mnist_mlp"
    assert (problem.num_examples, problem.num_queries) == (60, 7)
    own = {tuple(row) for row in ((data(60, 0)[0].reshape(60, -1) / 255 - MEAN) / STD).round(5)}
    found = {tuple(row) for row in problem.train[0].double().numpy().round(5)}
    assert found == own


def test_a_folder_without_the_files_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProblemError, match="train-images-idx3-ubyte"):
        make_problem(f"mnist_mlp?folder={tmp_path}")
    with pytest.raises(ProblemError, match="no folder nowhere"):
        make_problem("mnist_mlp?folder=nowhere")


def test_its_chain_without_matrices_predicts_what_that_with_matrices_does() -> None:
    """At a reduced size: Krylov spaces, sweeps of all blocks, and factors, against the matrices."""
    problem = make_problem("mnist_mlp?examples=80&queries=8&hidden=3").trained()
    masks = np.random.default_rng(0).random((20, 80)) < 0.5
    chain = build_lattice(problem)
    rungs = build_lattice(problem, plan=plan_chain(problem, 1))
    assert rungs["hessian"].matrix_free
    assert rungs["block_ggn"].matrix_free
    unit = float(chain["ggn"].trace()) / rank_bound(problem)
    free = scorers_of(rungs, StreamedGradients(problem), masks=len(masks))
    exact = scorers_of(chain, loss_gradients(problem))
    for name, one in free.items():
        for damping in (unit, 100 * unit):
            wanted = exact[name].predicted_effects(masks, damping)
            found = one.predicted_effects(masks, damping)
            np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3 * abs(wanted).max())
