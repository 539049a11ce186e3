"""Hugging Face transformers for the tests, where it is installed."""

from __future__ import annotations

import sys

import pytest

try:
    import torchvision  # noqa: F401  # pyright: ignore[reportMissingImports]
except (ImportError, RuntimeError):  # of another build of torch; text needs none
    sys.modules["torchvision"] = None  # type: ignore[assignment]
transformers = pytest.importorskip("transformers")
