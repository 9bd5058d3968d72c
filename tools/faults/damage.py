"""Damages files at random: a checkpoint and packed texts must be refused by name, or read as they were.

python -m tools.faults.damage [MUTATIONS]
"""

from __future__ import annotations

import gzip
import io
import random
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from deeprnn.data.reading import load_text
from deeprnn.train import storage

from .calls import step_of, write

__all__ = ["PACKED", "damaged", "damaged_checkpoints", "damaged_texts"]

TEXT = "".join(f"{n} little ducks went out one day, over the hills and far away; {n} came back.\n" for n in range(200))


def zipped(compression: int) -> bytes:
    """A .zip file of the text."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr(zipfile.ZipInfo("ducks.txt"), TEXT, compression)
    return buffer.getvalue()


PACKED: dict[str, Callable[[], bytes]] = {
    "stored.zip": lambda: zipped(zipfile.ZIP_STORED),
    "deflate.zip": lambda: zipped(zipfile.ZIP_DEFLATED),
    "bzip2.zip": lambda: zipped(zipfile.ZIP_BZIP2),
    "lzma.zip": lambda: zipped(zipfile.ZIP_LZMA),
    "text.gz": lambda: gzip.compress(TEXT.encode(), mtime=0),
}


def damaged(content: bytes, rng: random.Random) -> bytes:
    """A damaged copy: bits flipped, bytes replaced, removed, repeated or zeroed, or the end cut off."""
    data = bytearray(content)
    place = rng.randrange(len(data))
    length = rng.randint(1, 64)
    kind = rng.randrange(8)
    if kind < 3:
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 3:
        data[place : place + length] = rng.randbytes(length)
    elif kind == 4:
        del data[place:]
    elif kind == 5:
        del data[place : place + length]
    elif kind == 6:
        data[place:place] = data[place : place + length]
    else:
        data[place : place + length] = bytes(len(data[place : place + length]))
    return bytes(data)


def damaged_texts(name: str, mutations: int, folder: Path) -> Counter[str]:
    """Read a packed text with each of `mutations` damages; counts the outcomes.

    Raises
    ------
    RuntimeError
        If another text is read, or an error does not name the file.
    """
    content, seen, path = PACKED[name](), Counter[str](), folder / name
    for mutation in range(mutations):
        path.write_bytes(damaged(content, random.Random(mutation)))
        try:
            text, _, _ = load_text(str(path))
        except (ValueError, OSError) as error:
            if str(path) not in str(error) or "\n" in str(error):
                raise RuntimeError(f"{name}, mutation {mutation}: {error!r}") from error
            seen["refused"] += 1
        else:
            if text != TEXT:
                raise RuntimeError(f"{name}, mutation {mutation}: another text was read")
            seen["whole"] += 1
    return seen


def damaged_checkpoints(mutations: int, folder: Path) -> Counter[str]:
    """Damage one file of a checkpoint in each of `mutations` ways, or exchange two of them; counts the outcomes.

    Raises
    ------
    RuntimeError
        If a checkpoint is read that is not what was written, or an error does not name the folder.
    """
    write(folder, 7)
    seen = Counter[str]()
    before = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    (manifest,) = storage.manifests(folder)
    for mutation in range(mutations):
        rng = random.Random(mutation)
        files: Sequence[Path] = rng.sample(list(before), 2)
        if mutation % 10:
            changed = {files[0]: damaged(before[files[0]], rng)}
        else:
            changed = {files[0]: before[files[1]], files[1]: before[files[0]]}
        for path, content in changed.items():
            path.write_bytes(content)
        try:
            step_of(manifest)
        except ValueError as error:
            if str(folder) not in str(error) or "\n" in str(error):
                raise RuntimeError(f"checkpoint, mutation {mutation}: {error!r}") from error
            seen["refused"] += 1
        else:
            if any(before[path] != content for path, content in changed.items()):
                raise RuntimeError(f"checkpoint, mutation {mutation} of {files[0].name}: read as if it were whole")
            seen["whole"] += 1
        for path in changed:
            path.write_bytes(before[path])
    return seen


def main() -> int:
    """All of them; prints the outcomes."""
    mutations = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as work:
        print("checkpoint", dict(damaged_checkpoints(mutations, Path(work) / "checkpoint")))
        for name in PACKED:
            print(name, dict(damaged_texts(name, mutations, Path(work))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
