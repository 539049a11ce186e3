"""Every engine computes the same bytes, and a killed worker costs nothing but its task."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest

from decomposition.errors import StudyError
from decomposition.study.executors import Backend
from decomposition.study.runner import Outcome, run_tasks
from decomposition.study.running import RunningTasks
from decomposition.study.store import CellStore
from decomposition.study.worker import Job, execute
from tests.study.processes import driver, lives, one_worker_killed, wait_until
from tests.study.tiny_tasks import Tiny, attempts, cells, many

TASKS = [*many(6), *(Tiny(seed, pause=0.4) for seed in range(6, 12))]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("undisturbed")
    run_tasks(TASKS, folder, backend=Backend("sequential", threads=1), progress=False)
    return cells(folder)


def with_a_killed_worker(folder: Path, backend: Backend) -> Outcome:
    with one_worker_killed(folder, after=6) as killed:
        outcome = run_tasks(TASKS, folder, backend=backend, progress=False)
    assert len(killed) == 1
    return outcome


def check(folder: Path, outcome: Outcome, undisturbed: dict[str, bytes]) -> None:
    assert cells(folder) == undisturbed
    assert sorted(outcome.done) == sorted(task.key() for task in TASKS)
    assert outcome.failed == {}
    assert list((folder / "running").glob("*.json")) == []


def test_a_killed_process_loses_nothing(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    outcome = with_a_killed_worker(tmp_path, Backend("loky", jobs=2, threads=1))
    check(tmp_path, outcome, undisturbed)
    assert sum(attempts(tmp_path, task.seed) for task in TASKS) > len(TASKS)


@pytest.mark.slow
def test_workers_finish_when_their_driver_is_killed_and_end(tmp_path: Path) -> None:
    tasks = [Tiny(seed, pause=2.0) for seed in range(4)]
    process = driver(tmp_path, tasks, "loky")
    wait_until(lambda: attempts(tmp_path, 0) and attempts(tmp_path, 1))
    owners = RunningTasks(tmp_path).owners().values()
    process.kill()
    process.join()
    assert len(owners) == 2
    wait_until(lambda: all(not lives(owner.pid) for owner in owners))
    assert len(cells(tmp_path)) == sum(attempts(tmp_path, task.seed) for task in tasks) < 4
    assert list((tmp_path / "running").glob("[!r]*.json")) == []


@pytest.mark.slow
def test_a_task_that_kills_twice_is_given_up(tmp_path: Path) -> None:
    tasks = [*many(6, 0.1), Tiny(50, "kill", cost=3), Tiny(51, "kill once", cost=2)]
    backend = Backend("loky", jobs=2, threads=1)
    outcome = run_tasks(tasks, tmp_path, backend=backend, progress=False)
    assert [failure.label for failure in outcome.failed.values()] == ["tiny 50"]
    assert "was killed 2 times" in outcome.failed[tasks[-2].key()].message
    assert len(outcome.done) == 7
    assert attempts(tmp_path, 50) == 2


def test_workers_have_their_share_of_the_cores(tmp_path: Path) -> None:
    backend = Backend("loky", jobs=1, threads=2)
    task = Tiny(1)
    run_tasks([task], tmp_path, backend=backend, progress=False)
    tree = CellStore(tmp_path).load(task.key())
    assert tree is not None
    assert tree["levels"].attrs == {"threads": 2, "torch": 2, "blas": 2}


def test_a_dask_cluster_loses_nothing(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    distributed = pytest.importorskip("distributed")
    import dask

    with warnings.catch_warnings(), dask.config.set({"distributed.deploy.lost-worker-timeout": 99}):
        warnings.simplefilter("ignore")  # of the cluster itself, which shuts down noisily
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
        ) as cluster:
            backend = Backend("dask", address=cluster.scheduler_address)
            outcome = with_a_killed_worker(tmp_path, backend)
    check(tmp_path, outcome, undisturbed)


@pytest.mark.slow
def test_a_ray_cluster_loses_nothing(
    tmp_path: Path, undisturbed: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Ray, about its own future
        outcome = with_a_killed_worker(tmp_path, Backend("ray", jobs=2))
    check(tmp_path, outcome, undisturbed)


@pytest.mark.parametrize(("name", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_engine_is_named(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(StudyError, match=rf"pip install 'curvature-decomposition\[{name}\]'"):
        run_tasks([Tiny(1)], tmp_path, backend=Backend(name), progress=False)  # type: ignore[arg-type]


def test_a_scheduler_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    from decomposition.study import executors

    monkeypatch.setattr(executors, "CONNECT_SECONDS", 0.5)
    backend = Backend("dask", address="tcp://127.0.0.1:9")
    with pytest.raises(StudyError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        run_tasks([Tiny(1)], tmp_path, backend=backend, progress=False)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    task = Tiny(1)
    return Job(task, task.key(), tmp_path / "elsewhere", 1, "run", 0.0, str(tmp_path))


def test_a_worker_without_the_folder_says_so(job: Job) -> None:
    report = execute(job)
    assert report.state == "elsewhere"
    assert not job.folder.exists()


def test_a_worker_with_other_code_computes_nothing(job: Job) -> None:
    with RunningTasks(job.folder).announce(job.run, "driver"):
        report = execute(replace(job, key="0" * 64))
    assert report.state == "failed"
    assert report.failure is not None
    assert "another version of this package" in report.failure.message
    assert not (job.folder / "attempts").exists()
