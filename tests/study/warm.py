"""Everything a driver imports, before it is forked: xarray looks for libraries on first use."""

import tempfile
from pathlib import Path

from tests.study.tiny_tasks import Tiny

with tempfile.TemporaryDirectory() as folder:
    Tiny(0).compute(Path(folder), 1)
