"""A hash of source code: results of other code than this are never taken for this code's.

Comments, docstrings and layout do not enter: what is hashed is the syntax tree without them.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


@cache
def source_hash(*parts: str) -> str:
    """SHA-256 of the package's modules ``parts``: files or folders, such as ``retraining``.

    Raises:
        FileNotFoundError: the package has no such part.
    """
    digest = hashlib.sha256()
    for path in sorted({path for part in parts for path in _files(PACKAGE / part)}):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()}\n".encode())
        digest.update(ast.dump(_without_docstrings(path.read_text("utf-8"))).encode())
    return digest.hexdigest()


@cache
def import_closure(part: str, beyond: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """All modules of the package behind ``part`` (a file), itself among them, as for source_hash.

    Imports inside functions count. A package counts with its ``__init__``. Modules ``beyond`` are
    left out, with what stands behind them alone.

    Raises:
        FileNotFoundError: the package has no such file.
    """
    seen: set[str] = set()
    todo = [part]
    while todo:
        one = todo.pop()
        if one not in seen | beyond:
            seen.add(one)
            todo += _imported(next(iter(_files(PACKAGE / one))))
    return tuple(sorted(seen))


def _imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE.name:
            parts = str(node.module).split(".")[1:]
            modules = [parts, *([*parts, alias.name] for alias in node.names)]
            # Packages on the way count; the root's __init__, which re-exports, only by itself.
            packages = [parts[:i] for i in range(1, len(parts))] + modules
            if not parts and all((PACKAGE / f"{alias.name}.py").is_file() for alias in node.names):
                packages = modules[1:]  # modules of the root, and nothing that it re-exports
            names = ["/".join([*one, "__init__"]) for one in packages]
            names += ["/".join(one) for one in modules if one]
            found |= {f"{name}.py" for name in names if (PACKAGE / f"{name}.py").is_file()}
    return found


def _files(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return path.rglob("*.py")
    if not path.is_file():
        raise FileNotFoundError(f"no module {path}")
    return (path,)


def _without_docstrings(source: str) -> ast.Module:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            # docstrings of modules, classes and functions, and those that follow a field
            node.body = [  # type: ignore[attr-defined]
                line
                for line in body
                if not (
                    isinstance(line, ast.Expr)
                    and isinstance(line.value, ast.Constant)
                    and isinstance(line.value.value, str)
                )
            ]
    return tree
