"""Scores made elsewhere, by another library or another method: read, checked, and put on the bench.

An array (queries, train) with a name. **Sign**: as τ here, a positive entry says that removing the
training example raises the loss on the query (the example is helpful). Only ranks within a query
count, so that any positive factor for a query is the same; each row is divided by its largest
entry. There is no λ: a level is one number under every protocol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from jaxtyping import Float

from decomposition.chain.build import RESERVED
from decomposition.checks import printable
from decomposition.errors import DecompositionError
from decomposition.linalg import to_numpy
from decomposition.problem import Problem
from decomposition.reals import real_tensor
from decomposition.scores.ranks import correlation, rank
from decomposition.settings import Settings

AGAINST = 3.0
"""Standard errors below zero from which a mean rank correlation is clearly negative."""
Given = Mapping[str, object]
"""Name → anything that is an array (queries, train)."""
SIGN = "positive where removing the training example raises the loss on the query"


def given_scores(
    given: Given | None, problem: Problem, settings: Settings, taken: Iterable[str] = ()
) -> dict[str, Float[np.ndarray, "Q N"]]:
    """Every array of finite numbers of the right shape, its rows of largest entry ±1.

    Args:
        given: name → scores.
        problem: whose queries and training examples they are of, in their order.
        settings: of the run, in which they must have a place.
        taken: names that other rungs have.

    Raises:
        DecompositionError: a name that is taken or none, a wrong shape, a value that is not finite,
            a query for which all examples have one score, which ranks nothing; or a run that has
            several base models, or none to hold scores against.
    """
    if given and settings.base_seeds > 1:
        raise DecompositionError(
            f"scores made elsewhere ({', '.join(map(str, given))}) are of one trained model: they "
            f"cannot be held against base_seeds={settings.base_seeds} of them; use 1"
        )
    if given and not settings.attribution:
        raise DecompositionError(
            f"scores made elsewhere ({', '.join(map(str, given))}) are held against retrained "
            "models, which attribution=False leaves out"
        )
    names = {*RESERVED, *taken}
    found = {}
    for name, values in (given or {}).items():
        if not isinstance(name, str) or not name.strip() or printable(name) != name:
            raise DecompositionError(f"scores {name!r} need a name of printable characters")
        if name in names:
            raise DecompositionError(f"scores {name!r} have a rung's name: choose another")
        found[name] = _checked(name, values, (problem.num_queries, problem.num_examples))
    return found


def _checked(name: str, values: object, shape: tuple[int, int]) -> Float[np.ndarray, "Q N"]:
    scores = to_numpy(real_tensor(values, f"scores {name!r}"))
    if scores.shape != shape:
        turned = "; they look transposed: pass their .T" if scores.T.shape == shape else ""
        raise DecompositionError(
            f"scores {name!r} have shape {tuple(scores.shape)}, not (queries, train) = {shape}"
            f"{turned}"
        )
    bad = np.argwhere(~np.isfinite(scores))
    if len(bad):
        query, example = bad[0].tolist()
        raise DecompositionError(
            f"scores {name!r} hold {scores[query, example]} at query {query}, training example "
            f"{example} ({len(bad)} such values): scores are finite numbers"
        )
    constant = np.flatnonzero(np.ptp(scores, axis=1) == 0)
    if len(constant):
        raise DecompositionError(
            f"scores {name!r} are constant for query {constant[0]} ({len(constant)} such queries): "
            "they rank no examples; leave out these queries"
        )
    return scores / np.abs(scores).max(axis=1, keepdims=True)


def sign_note(
    name: str, scores: Float[np.ndarray, "Q N"], identity: Float[np.ndarray, "Q N"]
) -> str | None:
    """What to ask where scores rank examples against the products of gradients; None if not."""
    rho = correlation(rank(scores), rank(identity))
    rho = rho[np.isfinite(rho)]
    if not len(rho):
        return None
    error = rho.std(ddof=1) / len(rho) ** 0.5 if len(rho) > 1 else 1.0
    if float(rho.mean()) >= -AGAINST * error:
        return None
    return (
        f"scores {name!r} rank the examples against those of identity (mean rank correlation "
        f"{rho.mean():.2f}): is their sign the other way round? They are {SIGN}; if not, pass "
        "-scores"
    )


def read_named(arguments: Sequence[str]) -> dict[str, np.ndarray]:
    """``name=FILE`` → name and scores.

    Raises:
        DecompositionError: no such pair, a name twice, or as ``read_scores``.
    """
    found: dict[str, np.ndarray] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not (name and equals and path):
            raise DecompositionError(f"scores are given as name=FILE, got {argument!r}")
        if name in found:
            raise DecompositionError(f"scores {name!r} are given twice")
        found[name] = read_scores(path)
    return found


def read_scores(path: str | Path) -> np.ndarray:
    """An array from .npy, .npz, netCDF (.nc) or .safetensors, as kronfluence writes it.

    A file of several arrays must call one of them ``scores`` or, as kronfluence does,
    ``all_modules``; dimensions ``query`` and ``train`` of netCDF are found by name.

    Raises:
        DecompositionError: no such file, another format, or no array that is the scores.
    """
    path = Path(path)
    readers = {".npy": _npy, ".npz": _npz, ".nc": _netcdf, ".safetensors": _safetensors}
    if path.suffix not in readers:
        raise DecompositionError(
            f"cannot read scores from {path}: use {', '.join(readers)}, not {path.suffix!r}"
        )
    if not path.is_file():
        raise DecompositionError(f"there is no file of scores {path}")
    try:
        return readers[path.suffix](path)
    except (OSError, ValueError, EOFError, KeyError) as error:
        said = str(error) or type(error).__name__
        raise DecompositionError(f"cannot read scores from {path}: {said}") from error


def _npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _npz(path: Path) -> np.ndarray:
    with np.load(path, allow_pickle=False) as arrays:
        return _one(path, arrays)


def _netcdf(path: Path) -> np.ndarray:
    with xr.open_dataset(path, engine="h5netcdf") as data:
        array = _one(path, data.data_vars)
        named = {"query", "train"} == set(array.dims)
        return (array.transpose("query", "train") if named else array).values


def _safetensors(path: Path) -> np.ndarray:
    try:
        from safetensors import SafetensorError  # pyright: ignore[reportMissingImports]
        from safetensors.torch import load_file  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise DecompositionError(
            f"{path} needs the package safetensors: pip install safetensors, or save the array "
            "with numpy.save"
        ) from None
    try:
        return to_numpy(_one(path, load_file(path)))
    except SafetensorError as error:
        raise DecompositionError(f"cannot read scores from {path}: {error}") from error


def _one(path: Path, arrays):
    """The only array, or the one whose name says that it is the scores."""
    names = list(arrays)
    for name in ("scores", "all_modules"):
        if name in names:
            return arrays[name]
    if len(names) != 1:
        raise DecompositionError(
            f"{path} holds {', '.join(map(str, names)) or 'no array'}: call the scores `scores`"
        )
    return arrays[names[0]]
