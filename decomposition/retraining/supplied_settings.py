"""The settings of a run whose truth is a supplied bank."""

from __future__ import annotations

from dataclasses import replace

from decomposition.retraining.supplied import BankFileError, SuppliedBank
from decomposition.settings import Settings
from decomposition.targets.names import ONE_AT_A_TIME


def settings_of(bank: SuppliedBank, settings: Settings) -> Settings:
    """``settings`` with the bank's masks, repeats and alpha.

    Raises:
        BankFileError: the settings ask for what a supplied bank does not hold.
    """
    if settings.target in ONE_AT_A_TIME:
        raise BankFileError(
            f"target {settings.target} is measured here, not read from a bank: use target loss or "
            "margin, or leave the bank out"
        )
    if not settings.attribution:
        raise BankFileError("a bank is of no use without attribution: leave one of them out")
    if settings.base_seeds > 1:
        raise BankFileError(
            f"a supplied bank belongs to one base model, got base_seeds = {settings.base_seeds}"
        )
    plan = bank.plan
    return replace(
        settings,
        masks=plan.masks,
        repeats=plan.repeats,
        alpha=plan.alpha,
        second_order_masks=plan.second_order_masks,
    )
