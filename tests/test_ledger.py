"""Shared parts are charged in full to whoever needs them, and time is charged once to each part."""

from __future__ import annotations

import time

import pytest

from decomposition.ledger import BUILD, DECOMPOSE, Ledger, spending

STEP = 0.02


class Kitchen:
    """A dough that two cakes share."""

    def __init__(self) -> None:
        self.dough = False

    def knead(self) -> None:
        with spending("dough"):
            if not self.dough:
                time.sleep(STEP)
            self.dough = True

    def cake(self, name: str, share: float = 1.0) -> None:
        with spending(name):
            with spending(("part of the dough", share), share=share):
                self.knead()
            time.sleep(STEP)


def baked(**cakes: float) -> Ledger:
    ledger, kitchen = Ledger(), Kitchen()
    with ledger.opened():
        for name, share in cakes.items():
            kitchen.cake(name, share)
    return ledger


def test_a_shared_part_is_charged_in_full_to_both() -> None:
    ledger = baked(one=1.0, other=1.0)
    for name in ("one", "other"):
        assert ledger.alone(name)[BUILD].clock == pytest.approx(2 * STEP, rel=0.4)
    assert sum(one.clock for one in ledger.spent.values()) == pytest.approx(3 * STEP, rel=0.4)


def test_of_a_part_of_a_part_its_share_is_charged() -> None:
    ledger = baked(whole=1.0, half=0.5)
    assert ledger.alone("half")[BUILD].clock == pytest.approx(1.5 * STEP, rel=0.4)


def test_phases_are_told_apart() -> None:
    ledger = Ledger()
    with ledger.opened(), spending("rung"), spending("eigh", DECOMPOSE):
        time.sleep(STEP)
    found = ledger.alone("rung")
    assert found[DECOMPOSE].clock > 0.8 * STEP
    assert found[BUILD].clock < 0.2 * STEP


def test_nothing_is_kept_without_an_open_ledger() -> None:
    ledger = Ledger()
    Kitchen().cake("one")
    assert not ledger.spent
