"""A coverage-guided fuzzer (atheris) on what reads files that are not trusted.

    python -m tools.faults.fuzz {manifest,arrays,corpus,gzip,zip,options} [SECONDS]

Whatever the bytes, a reader may raise ValueError or OSError, in one line, and nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any, Callable

import atheris

with atheris.instrument_imports(include=["deeprnn", "zipfile"]):
    from deeprnn.config import read_options
    from deeprnn.data.reading import load_text
    from deeprnn.train import storage

from .calls import write
from .damage import PACKED

__all__ = ["main"]


def manifest(path: Path, data: bytes) -> None:
    """A manifest whose hash is made right where it has one, so that what is behind the hash is reached."""
    before, mark, rest = data.rpartition(b'"sha256": "')
    if mark:
        digest = storage.sha256(before + mark + rest[64:]).encode()
        data = before + mark + digest + rest[64:]
    path.write_bytes(data)
    content = storage.read_manifest(path)
    for entry in (
        storage.entries({"files": {}, "best": None, **content}) if isinstance(content.get("files"), dict) else []
    ):
        storage.check_entry(path, entry)


def arrays(path: Path, data: bytes) -> None:
    """An array file whose hash is right."""
    path.write_bytes(data)
    entry = {"file": path.name, "size": len(data), "sha256": storage.sha256(data)}
    storage.read_arrays(path.parent, entry)


def corpus(path: Path, data: bytes) -> None:
    """A text."""
    path.write_bytes(data)
    load_text(str(path))


def options(path: Path, data: bytes) -> None:
    """A file of options."""
    path.write_bytes(data)
    read_options(path)


def written(pattern: str) -> list[bytes]:
    """The files of a checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), 1)
        return [path.read_bytes() for path in Path(folder).glob(pattern)]


TARGETS: dict[str, tuple[Callable[[Path, bytes], None], str, Callable[[], list[bytes]]]] = {
    "manifest": (manifest, "step-000000001.json", lambda: written("*.json")),
    "arrays": (arrays, "parameters-0123456789abcdef.npz", lambda: written("*.npz")),
    "corpus": (corpus, "text.txt", lambda: [b"a text\n", "分开".encode("utf-16"), "é".encode("latin-1")]),
    "gzip": (corpus, "text.gz", lambda: [PACKED["text.gz"]()]),
    "zip": (corpus, "text.zip", lambda: [make() for name, make in PACKED.items() if name.endswith(".zip")]),
    "options": (options, "options.yaml", lambda: [b"layers: 2\nsplit: [0.8, 0.1, 0.1]\n"]),
}


def main() -> None:
    """Fuzz one target for so many seconds; a finding ends the process with its input in the folder shown."""
    target, name, seeds = TARGETS[sys.argv[1]]
    seconds = sys.argv[2] if len(sys.argv) > 2 else "1200"
    work = Path(tempfile.mkdtemp(prefix="deeprnn-fuzz-"))
    (work / "seeds").mkdir()
    for index, seed in enumerate(seeds()):
        (work / "seeds" / str(index)).write_bytes(seed)

    def once(data: bytes) -> None:
        try:
            target(work / name, data)
        except (ValueError, OSError) as error:
            if "\n" in str(error) and target is not options:  # the parser of YAML has several lines, made one later
                raise RuntimeError("an error of several lines") from error

    arguments: list[Any] = [sys.argv[0], f"-max_total_time={seconds}", f"-artifact_prefix={work}/", str(work / "seeds")]
    atheris.Setup(arguments, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
