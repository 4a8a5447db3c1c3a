"""Arguments of a call as one .npz file: nested containers become slash-separated names.

``(x, {"state": s})`` is stored as ``0`` and ``1/state``. Works without torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from graphopt.errors import InputFileError
from graphopt.output_files import write_file
from graphopt.plain_files import open_plain

Array = np.ndarray[Any, Any]


def write_arrays(path: Path, values: Sequence[Any]) -> None:
    """Write arrays or tensors, in nested tuples, lists and dicts, to an .npz file.

    Raises:
        StorageError: if it cannot be written.
    """
    arrays = flatten(values)
    write_file(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]  # **kwds


def read_arguments(path: Path) -> tuple[Any, ...]:
    """Read what :func:`write_arrays` wrote, or one array of an .npy file.

    Raises:
        InputFileError: If the file is missing or is no .npz or .npy file of plain arrays.
    """
    try:
        with open_plain(path) as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return (loaded,)
            flat = {name: loaded[name] for name in loaded.files}
    except OSError as error:
        raise InputFileError(path, error.strerror or str(error)) from error
    except Exception as error:  # of whatever a damaged file makes numpy and zipfile do
        raise InputFileError(path, str(error) or type(error).__name__) from error
    nested = unflatten(flat)
    return nested if isinstance(nested, tuple) else (nested,)


def flatten(values: Any, prefix: str = "") -> dict[str, Array]:
    """Arrays by path; tensors are detached and converted."""
    if isinstance(values, Mapping):
        items = [(str(key), value) for key, value in values.items()]
    elif isinstance(values, (tuple, list)):
        items = [(str(index), value) for index, value in enumerate(values)]
    else:
        array = values.detach().numpy() if hasattr(values, "detach") else np.asarray(values)
        return {prefix: array}
    flat: dict[str, Array] = {}
    for key, value in items:
        flat.update(flatten(value, f"{prefix}/{key}" if prefix else key))
    return flat


def unflatten(flat: Mapping[str, Array]) -> Any:
    """Nested tuples (names 0, 1, ...) and dicts (other names) from arrays by path."""
    groups: dict[str, dict[str, Array]] = {}
    for name, array in flat.items():
        head, _, rest = name.partition("/")
        groups.setdefault(head, {})[rest] = array
    built = {head: group[""] if "" in group else unflatten(group) for head, group in groups.items()}
    if set(built) == {str(index) for index in range(len(built))}:
        return tuple(built[str(index)] for index in range(len(built)))
    return built
