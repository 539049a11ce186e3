"""Workers whose driver was killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.study.processes import ROOT, listed, lives, wait_until
from tests.study.tiny_tasks import Tiny, attempts, cells

DRIVE = """
import sys
from pathlib import Path
from tests.study.tiny_tasks import Tiny, drive
drive(Path(sys.argv[1]), [Tiny(0, pause=3.0), Tiny(1)], "loky")
"""


def test_workers_end_soon_after_their_driver_and_let_go_of_its_output(tmp_path: Path) -> None:
    """One computes, and what it computes is kept; the other has nothing to do."""
    command = [sys.executable, "-c", DRIVE, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_until(lambda: (tmp_path / "cells" / f"{Tiny(1).key()}.cell").exists())
        assert attempts(tmp_path, 0) == 1
        workers = [int(pid) for pid, its in listed("pid=,ppid=") if int(its) == process.pid]
        process.kill()
        begun = time.monotonic()
        process.communicate(timeout=60)  # a reader of the output does not wait for the workers
    wait_until(lambda: not any(map(lives, workers)))
    assert time.monotonic() - begun < 20
    assert len(workers) >= 2
    assert len(cells(tmp_path)) == 2
