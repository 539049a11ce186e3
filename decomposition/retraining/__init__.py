"""Batched retraining and the bank of retrained models on disk."""

from decomposition.retraining.bank import Bank, BankPlan, retrain_bank, retrain_part
from decomposition.retraining.base import train_base_model
from decomposition.retraining.supplied import SuppliedBank, read_bank
from decomposition.retraining.training import default_chunk_size

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
