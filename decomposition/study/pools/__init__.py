"""What hands jobs to workers: one file per engine, with one interface."""

from decomposition.study.pools.interface import Lost, Pool

__all__ = ["Lost", "Pool"]
