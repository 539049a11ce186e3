"""The hash of the source: what computes counts, what explains does not."""

from pathlib import Path

import pytest

from decomposition import source

CODE = '"""Module."""\n\n\ndef f(x):\n    """Docs."""\n    return x + 1\n'


def hashed(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> str:
    (folder / "part.py").write_text(text)
    monkeypatch.setattr(source, "PACKAGE", folder)
    source.source_hash.cache_clear()
    return source.source_hash("part.py")


@pytest.fixture(autouse=True)
def _fresh() -> None:
    source.source_hash.cache_clear()


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("Docs.", "Other docs.", True),
        ("x + 1", "x + 1  # why", True),
        ("    return", "\n    return", True),
        ("x + 1", "x + 2", False),
        ("def f", "def g", False),
    ],
)
def test_only_code_changes_the_hash(
    old: str, new: str, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = hashed(monkeypatch, tmp_path, CODE)
    after = hashed(monkeypatch, tmp_path, CODE.replace(old, new))
    assert (before == after) is same


def test_a_part_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match="no module"):
        source.source_hash("nothing.py")


def test_the_closure_of_a_module_is_what_it_imports() -> None:
    behind = source.import_closure("curvature/kronecker.py")
    assert {"curvature/kronecker.py", "layers/blocks.py", "linalg.py", "errors.py"} <= set(behind)
    assert not [part for part in behind if part.startswith(("report", "run", "stages", "__init__"))]
