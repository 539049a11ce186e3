"""The name of a result holds everything that determines it."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import decomposition.study.task as module
from decomposition.errors import StudyError
from decomposition.source import source_hash
from tests.study.tiny_tasks import Early, Tiny


def test_equal_tasks_have_one_key() -> None:
    assert Tiny(1).key() == Tiny(1).key() == pickle.loads(pickle.dumps(Tiny(1))).key()


def test_what_does_not_determine_the_result_is_not_in_the_key() -> None:
    assert Tiny(1, pause=3.0, cost=9.0, size=7).key() == Tiny(1).key()


@pytest.mark.parametrize(
    "other", [Tiny(2), Tiny(1, "fail"), Early(1), Tiny(1, source="damping.py")], ids=str
)
def test_configuration_kind_and_code_change_the_key(other: Tiny) -> None:
    assert other.key() != Tiny(1).key()


def test_edited_code_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Tiny(1).key()
    monkeypatch.setattr(module, "source_hash", lambda *parts: source_hash(*parts) + "edited")
    assert Tiny(1).key() != before


def test_another_version_of_a_library_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Tiny(1).key()
    monkeypatch.setattr(module, "LIBRARIES", (*module.LIBRARIES, "xarray"))
    assert Tiny(1).key() != before


@dataclass(frozen=True)
class Unnamed(Tiny):
    value: Any = None

    def config(self) -> dict[str, Any]:
        return {"value": self.value}


@pytest.mark.parametrize("value", [np.float32(1), float("nan"), {1, 2}], ids=repr)
def test_a_configuration_without_a_name_is_refused(value: object) -> None:
    with pytest.raises(StudyError, match="configuration of task 'tiny 1' cannot be named"):
        Unnamed(1, value=value).key()


def test_the_order_of_a_configuration_does_not_matter() -> None:
    one = Unnamed(1, value={"a": 1, "b": [True, None]})
    assert replace(one, value={"b": [True, None], "a": 1}).key() == one.key()
