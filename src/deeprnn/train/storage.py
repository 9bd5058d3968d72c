"""Storage of checkpoints: plain arrays and a manifest, hashed and written atomically.

A folder of checkpoints holds manifests and arrays::

    step-000001200.json                    state of the run, and the array files with their sizes and SHA-256
    step-000001100.json
    parameters-0123456789abcdef.npz        arrays by gluon's structural names; the file is named after its content
    training-fedcba9876543210.npz          what training needs besides: optimizer, carried states, random numbers

Arrays are written first, then the manifest is renamed into place, and then files that no manifest names are removed. A
crash at any moment leaves either the previous checkpoint or the new one. The manifest ends with a hash of itself.

What is read is not trusted: only regular files inside the folder are opened, an array file must have the size and the
hash that the manifest gives and hold uncompressed arrays of finite numbers, and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

import numpy as np

from .._util.files import read_json, read_regular, remove_temporary, write_bytes_atomic

__all__ = [
    "FORMAT",
    "FORMAT_1",
    "KEPT",
    "Arrays",
    "check_entry",
    "entries",
    "holds_checkpoints",
    "manifests",
    "read_arrays",
    "read_manifest",
    "sha256",
    "write_arrays",
    "write_checkpoint",
    "write_manifest",
]

FORMAT = 2
"""Version of the format of the manifest. Format 1, from before the first release, can be read."""

KEPT = 3
"""Checkpoints that are kept in a folder, besides the best network."""

LARGEST_MANIFEST = 64 << 20
"""Bytes; the vocabulary is most of a manifest."""

Arrays = dict[str, np.ndarray]

FORMAT_1 = ("last", "best")
"""The checkpoints of a folder in format 1."""

_MANIFEST = re.compile(r"step-\d{9,}\.json")
_ARRAY_FILE = re.compile(r"(parameters|training|optimizer)-[0-9a-f]{16}\.npz")
_SEAL = b'"sha256": "'
_DIGITS = 64
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(rb"\{'descr': '([<|][fiu][1248])', 'fortran_order': False, 'shape': \(([0-9, ]{0,200})\), \}\s*")


def sha256(content: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(content).hexdigest()


def holds_checkpoints(folder: Path) -> bool:
    """Whether a folder has any checkpoint, whole or damaged."""
    return bool(manifests(folder)) or (folder / "last.json").exists()


def manifests(folder: Path) -> list[Path]:
    """The manifests in a folder, the newest first."""
    found = [path for path in folder.glob("step-*.json") if _MANIFEST.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem[len("step-") :]), reverse=True)


def write_checkpoint(
    folder: Path,
    step: int,
    parameters: Arrays,
    training: Arrays,
    content: Mapping[str, Any],
    best: Optional[Mapping[str, Any]],
) -> dict[str, Any]:
    """Write a checkpoint, then remove all but the last `KEPT` and what those name.

    Parameters
    ----------
    folder
        Created if it is missing.
    step
        Updates made; the manifest is named after it. Checkpoints of later steps are removed.
    parameters, training
        The arrays.
    content
        The manifest, without format and files.
    best
        Epoch, step and array file of the best network; without a file it is the network of this checkpoint.

    Returns
    -------
    dict
        The manifest.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "parameters": write_arrays(folder, "parameters", parameters),
        "training": write_arrays(folder, "training", training),
    }
    if best and not best["parameters"]:
        best = {**best, "parameters": files["parameters"]}
    manifest = {"format": FORMAT, **content, "files": files, "best": best}
    path = folder / f"step-{step:09d}.json"
    write_manifest(path, manifest)
    found = manifests(folder)
    place = found.index(path)
    for other in [*found[:place], *found[place + KEPT :], *(folder / f"{name}.json" for name in FORMAT_1)]:
        other.unlink(missing_ok=True)
    _remove_unnamed(folder, found[place : place + KEPT])
    return manifest


def write_arrays(folder: Path, kind: str, arrays: Arrays) -> dict[str, Any]:
    """Write an .npz file named after its content, unless it exists already; return its name, size and hash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            # numpy.savez writes the time into each member, but the same arrays must give the same file.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
    content = buffer.getbuffer()
    digest = hashlib.sha256(content).hexdigest()
    path = folder / f"{kind}-{digest[:16]}.npz"
    if not path.exists() or sha256(path.read_bytes()) != digest:
        write_bytes_atomic(path, content)
    return {"file": path.name, "size": len(content), "sha256": digest}


def check_entry(path: Path, entry: Any) -> None:
    """Raise ValueError unless `entry`, in the manifest `path`, names an array file of the same folder."""
    fine = (
        isinstance(entry, dict)
        and isinstance(entry.get("file"), str)
        and _ARRAY_FILE.fullmatch(entry["file"])
        and isinstance(entry.get("sha256"), str)
        and re.fullmatch("[0-9a-f]{64}", entry["sha256"])
        and type(entry.get("size")) in (int, type(None))  # format 1 has no sizes
    )
    if not fine:
        raise ValueError(f"{path} is damaged: expected the entry of an array file, got {str(entry)[:100]}")


def read_arrays(folder: Path, entry: Mapping[str, Any]) -> Arrays:
    """Read the .npz file of an entry that `check_entry` passed.

    Raises
    ------
    ValueError
        If the file is missing or no regular file, if its size or SHA-256 differs from the entry's, or if it holds
        anything but finite numbers.
    """
    path = folder / entry["file"]
    content = read_regular(path, entry.get("size"))
    _check_hash(path, entry["sha256"], sha256(content))
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            # Members that overlap, or claim to be larger than the file, would take more memory than the file does.
            if sum(member.file_size for member in members) > len(content):
                raise ValueError("its members are larger than the file")
            return dict(_array(archive, member) for member in members)
    except (ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} does not contain plain arrays: {error}") from error
    except MemoryError:
        raise ValueError(f"{path} does not fit in memory: it has {len(content):,} bytes") from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[str, np.ndarray]:
    """The name and the array of a member of an .npz file."""
    if member.compress_type != zipfile.ZIP_STORED or not member.filename.endswith(".npy"):
        raise ValueError(f"{member.filename!r} is not an uncompressed array")
    content = archive.read(member)
    begin = len(_MAGIC) + 2
    end = begin + int.from_bytes(content[len(_MAGIC) : begin], "little")
    header = _HEADER.fullmatch(content[begin:end])
    if not content.startswith(_MAGIC) or not header:
        raise ValueError(f"{member.filename!r} has no header of an array of numbers")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(size) for size in header[2].replace(b" ", b"").split(b",") if size)
    if math.prod(shape) * dtype.itemsize != len(content) - end:
        raise ValueError(f"{member.filename!r} claims the shape {shape}, and has {len(content) - end:,} bytes")
    array = np.frombuffer(content, dtype, offset=end).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{member.filename!r} has NaN or infinite values")
    return member.filename[: -len(".npy")], array


def _check_hash(path: Path, expected: str, found: str) -> None:
    if found != expected:
        raise ValueError(f"{path} is damaged: its SHA-256 should be {expected} and is {found}")


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write `manifest` as JSON whose last entry is the hash of the file, computed without the digits of that hash."""
    text = json.dumps({**manifest, "sha256": ""}, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    # A file name that is not UTF-8 has lone surrogates; the escape that Python writes for one is JSON's.
    before, mark, after = text.encode("utf-8", "backslashreplace").rpartition(_SEAL)
    write_bytes_atomic(path, before + mark + sha256(before + mark + after).encode("ascii") + after)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and verify a manifest; raises ValueError if it is missing, damaged or of another format."""
    before, mark, rest = read_regular(path, None, LARGEST_MANIFEST).rpartition(_SEAL)
    digits, after = rest[:_DIGITS], rest[_DIGITS:]
    seal = digits.decode("ascii", "backslashreplace")
    _check_hash(path, seal if seal.isalnum() else repr(seal), sha256(before + mark + after))
    try:
        manifest = read_json(before + mark + rest)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if manifest.get("format") not in (1, FORMAT):
        raise ValueError(
            f"{path} has format {manifest.get('format')}, but this version of deeprnn reads the formats 1 and {FORMAT}"
        )
    return manifest


def entries(manifest: Mapping[str, Any]) -> list[Any]:
    """The array files that a manifest of this format names; they are not checked."""
    files, best = manifest["files"], manifest["best"]
    return [files.get("parameters"), files.get("training"), *([best.get("parameters")] if best else [])]


def _remove_unnamed(folder: Path, kept: list[Path]) -> None:
    """Remove array files that none of these manifests names, and temporary files that a crash left behind."""
    named: set[str] = set()
    for path in kept:
        try:
            manifest = read_manifest(path)
            if manifest["format"] == FORMAT:
                named.update(entry["file"] for entry in entries(manifest))
        except (ValueError, TypeError, KeyError, AttributeError):
            return  # a damaged manifest may name any file
    for path in folder.iterdir():
        if _ARRAY_FILE.fullmatch(path.name) and path.name not in named:
            path.unlink()
    remove_temporary(folder)
