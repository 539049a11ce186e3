"""Batched retraining and the bank of retrained models on disk."""

from decomposition.retraining.bank import (
    Bank,
    BankPlan,
    default_chunk_size,
    retrain_bank,
    retrain_part,
)
from decomposition.retraining.base import train_base_model
from decomposition.retraining.supplied import SuppliedBank, read_bank

__all__ = [
    "Bank",
    "BankPlan",
    "SuppliedBank",
    "default_chunk_size",
    "read_bank",
    "retrain_bank",
    "retrain_part",
    "train_base_model",
]
