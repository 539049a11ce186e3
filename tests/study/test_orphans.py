"""Workers whose driver was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.study.processes import ROOT, wait_until
from tests.study.tiny_tasks import cells


def test_workers_end_soon_after_their_driver_and_let_go_of_its_output(tmp_path: Path) -> None:
    """What they compute is kept; a reader of the driver's output does not wait for them."""
    command = [sys.executable, "-m", "tests.study.tiny_tasks", str(tmp_path), "loky", "40", "0.3"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_until(lambda: len(cells(tmp_path)) >= 3)
        process.kill()
        begun = time.monotonic()
        process.communicate(timeout=60)
        assert time.monotonic() - begun < 20
    kept = len(cells(tmp_path))
    time.sleep(1.0)
    assert len(cells(tmp_path)) == kept < 40
