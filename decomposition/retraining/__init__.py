"""Batched retraining and the bank of retrained models on disk."""

from decomposition.retraining.bank import Bank, BankPlan, default_chunk_size, retrain_bank
from decomposition.retraining.base import train_base_model

__all__ = ["Bank", "BankPlan", "default_chunk_size", "retrain_bank", "train_base_model"]
