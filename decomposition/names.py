"""Names as a result can hold them: netCDF and HTML know neither NUL nor halves of surrogates."""

from __future__ import annotations


def printable(name: str, also: str = "") -> str:
    """The name with %XX or %uXXXX for characters that cannot be printed, and those in ``also``."""
    return "".join(c if c.isprintable() and c not in also else _escaped(ord(c)) for c in name)


def _escaped(code: int) -> str:
    return f"%{code:02X}" if code < 256 else f"%u{code:04X}"
