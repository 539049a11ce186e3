"""Batched retraining and the bank of retrained models on disk."""

from decomposition.retraining.bank import Bank, BankPlan, retrain_bank, retrain_part
from decomposition.retraining.base import train_base_model
from decomposition.retraining.training import default_chunk_size

__all__ = [
    "Bank",
    "BankPlan",
    "default_chunk_size",
    "retrain_bank",
    "retrain_part",
    "train_base_model",
]
