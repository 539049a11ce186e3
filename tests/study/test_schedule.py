"""What runs side by side: never more than fits, the longest first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from decomposition.errors import StudyError
from decomposition.study.executors import Backend
from decomposition.study.schedule import grouped, makespan, schedule_length
from tests.study.tiny_tasks import Early, Tiny

TASKS = st.lists(
    st.builds(
        Tiny,
        st.integers(0, 10**6),
        cost=st.floats(0.1, 100),
        size=st.integers(1, 50),
    ),
    min_size=1,
    max_size=12,
)


@given(TASKS, st.integers(1, 9), st.integers(1, 120), st.none() | st.integers(1, 9))
def test_memory_and_cores_are_shared(
    tasks: list[Tiny], cores: int, memory: int, jobs: int | None
) -> None:
    groups = grouped(tasks, cores, memory, jobs)
    assert sorted(task.seed for g in groups for task in g.tasks) == sorted(t.seed for t in tasks)
    for group in groups:
        sizes = sorted((task.memory() for task in group.tasks), reverse=True)
        assert sum(sizes[: group.jobs]) <= memory or group.jobs == 1
        assert group.jobs * group.threads <= max(cores, group.jobs)
        assert group.jobs <= (jobs or cores)
        costs = [task.seconds() for task in group.tasks]
        assert costs == sorted(costs, reverse=True)


def test_lower_stages_come_first() -> None:
    groups = grouped([Tiny(0), Early(1), Tiny(2, size=60), Early(3)], 2, 100)
    assert [group.stage for group in groups] == [0, 1, 1]
    assert [(group.jobs, group.threads) for group in groups] == [(2, 1), (1, 2), (2, 1)]


def test_threads_that_are_decided_stay() -> None:
    (group,) = grouped([Tiny(0), Tiny(1), Tiny(2)], 4, 100, decided=lambda task: 2)
    assert (group.jobs, group.threads) == (2, 2)


@pytest.mark.parametrize(("jobs", "expected"), [(1, 10.0), (2, 5.0), (3, 4.0), (9, 4.0)])
def test_the_length_of_a_schedule(jobs: int, expected: float) -> None:
    assert schedule_length([1.0, 4.0, 3.0, 2.0], jobs) == expected


def test_the_time_of_a_study_is_that_of_its_groups() -> None:
    tasks = [Early(0, cost=4.0), Tiny(1, cost=3.0), Tiny(2, cost=2.0), Tiny(3, cost=1.0)]
    assert makespan(grouped(tasks, 2, 100)) == 4.0 / 2 + 3.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"name": "spark"},
            r"Backend\.name must be one of loky, dask, ray, sequential, got 'spark'",
        ),
        ({"jobs": 0}, "jobs must be a whole number >= 1, got 0"),
        ({"threads": -1}, "threads must be a whole number >= 1, got -1"),
        ({"address": "tcp://x"}, "an address goes with dask or ray, not with loky"),
    ],
)
def test_an_impossible_backend_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(StudyError, match=message):
        Backend(**arguments)
