"""Storage of checkpoints: plain arrays and a manifest, hashed and written atomically.

A folder of checkpoints holds manifests and arrays::

    best.json                              state of the run, and the array files with their SHA-256
    last.json
    parameters-0123456789abcdef.npz        arrays by gluon's structural names; the file is named after its content
    optimizer-fedcba9876543210.npz

Arrays are written first, then the manifest is renamed into place, and then files that no manifest names are removed. A
crash at any moment leaves the previous checkpoint or the new one. Nothing is unpickled, and no array is read from a
file whose hash differs from the manifest's. The manifest ends with a hash of itself.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._util.files import write_bytes_atomic

__all__ = [
    "FORMAT",
    "Arrays",
    "read_arrays",
    "read_manifest",
    "remove_unnamed",
    "sha256",
    "write_arrays",
    "write_manifest",
]

FORMAT = 1
"""Version of the format of the manifest."""

Arrays = dict[str, np.ndarray]

_ARRAY_FILE = re.compile(r"(parameters|optimizer)-[0-9a-f]{16}\.npz")
_SEAL = b'"sha256": "'
_DIGITS = 64


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def write_arrays(folder: Path, kind: str, arrays: Arrays) -> dict[str, str]:
    """Write an .npz file named after its content, unless it exists already; return its name and hash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            # numpy.savez writes the time into each member, but the same arrays must give the same file.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    content = buffer.getvalue()
    digest = sha256(content)
    path = folder / f"{kind}-{digest[:16]}.npz"
    if not path.exists() or sha256(path.read_bytes()) != digest:
        write_bytes_atomic(path, content)
    return {"file": path.name, "sha256": digest}


def read_arrays(path: Path, expected: str) -> Arrays:
    """Read an .npz file whose SHA-256 must be `expected`; raises ValueError otherwise."""
    if not path.exists():
        raise ValueError(f"{path} is missing, so the checkpoint cannot be read")
    content = path.read_bytes()
    _check_hash(path, expected, sha256(content))
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} does not contain plain arrays: {error}") from error


def _check_hash(path: Path, expected: str, found: str) -> None:
    if found != expected:
        raise ValueError(f"{path} is damaged: its SHA-256 should be {expected} and is {found}")


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest` as JSON whose last entry is the hash of the file, computed without the digits of that hash."""
    text = json.dumps({**manifest, "sha256": ""}, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    before, mark, after = text.encode("utf-8").rpartition(_SEAL)
    write_bytes_atomic(path, before + mark + sha256(before + mark + after).encode("ascii") + after)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and verify a manifest; raises ValueError if it is missing, damaged or of another format."""
    if not path.exists():
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.json")))
        raise ValueError(f"{path} is missing: {'there is ' + others if others else 'the folder has no checkpoint'}")
    before, mark, rest = path.read_bytes().rpartition(_SEAL)
    digits, after = rest[:_DIGITS], rest[_DIGITS:]
    _check_hash(path, digits.decode("ascii", "backslashreplace"), sha256(before + mark + after))
    manifest: dict[str, Any] = json.loads(before + mark + rest)
    if manifest["format"] != FORMAT:
        raise ValueError(f"{path} has format {manifest['format']}, but this version of deeprnn reads format {FORMAT}")
    return manifest


def remove_unnamed(folder: Path) -> None:
    """Remove array files that no manifest names, and temporary files that a crash left behind."""
    named: set[str] = set()
    for path in folder.glob("*.json"):
        try:
            named.update(entry["file"] for entry in read_manifest(path)["files"].values())
        except ValueError:
            return  # a damaged manifest may name any file
    for path in folder.iterdir():
        if path.suffix == ".tmp" or (_ARRAY_FILE.fullmatch(path.name) and path.name not in named):
            path.unlink()
