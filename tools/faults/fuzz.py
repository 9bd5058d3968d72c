"""A coverage-guided fuzzer (atheris) for the readers of files that are not trusted.

    python -m tools.faults.fuzz TARGET [SECONDS]

TARGET is manifest or arrays (of a checkpoint), corpus, gzip, zip, options, export-manifest, export-config,
export-vocabulary or safetensors. For any bytes, a reader may raise only ValueError or
OSError, with a message of one line.
"""

from __future__ import annotations

import json
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Callable

import atheris

with atheris.instrument_imports(include=["deeprnn", "zipfile"]):
    from deeprnn import LanguageModel
    from deeprnn.config import read_options
    from deeprnn.data.reading import load_text
    from deeprnn.export import from_pretrained, from_torch, to_torch
    from deeprnn.train import storage

from .calls import write
from .damage import PACKED

__all__ = ["main"]


def manifest(path: Path, data: bytes) -> None:
    """A manifest, with its hash corrected if it has one, so that the checks after the hash are reached."""
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
    """An array file with the correct hash."""
    path.write_bytes(data)
    entry = {"file": path.name, "size": len(data), "sha256": storage.sha256(data)}
    storage.read_arrays(path.parent, entry)


def corpus(path: Path, data: bytes) -> None:
    """A text."""
    path.write_bytes(data)
    load_text(str(path))


def exported(path: Path, data: bytes) -> None:
    """A file of an exported folder; the manifest has its hash."""
    folder = path.parent / "exported"
    manifest = _export(folder)
    (folder / path.name).write_bytes(data)
    if path.name != "manifest.json":
        manifest["files"][path.name]["sha256"] = storage.sha256(data)
        (folder / "manifest.json").write_text(json.dumps(manifest))
    from_pretrained(folder)


def _export(folder: Path) -> dict[str, Any]:
    """Write the folder as it was before anything was changed in it; its manifest."""
    folder.mkdir(exist_ok=True)
    for name, content in _files().items():
        (folder / name).write_bytes(content)
    manifest: dict[str, Any] = json.loads(_files()["manifest.json"])
    return manifest


@cache
def _files() -> dict[str, bytes]:
    net = LanguageModel(4, 2, 2, cell="lstm", embedding_size=3)
    net.initialize()
    with tempfile.TemporaryDirectory() as folder:
        out = to_torch(net, Path(folder) / "model", vocabulary=["<unk>", "a", "b", "c"])
        return {path.name: path.read_bytes() for path in out.iterdir()}


def safetensors(path: Path, data: bytes) -> None:
    """A state dict of PyTorch."""
    path.write_bytes(data)
    from_torch(path)


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
    "export-manifest": (exported, "manifest.json", lambda: [_files()["manifest.json"]]),
    "export-config": (exported, "config.json", lambda: [_files()["config.json"]]),
    "export-vocabulary": (exported, "vocab.json", lambda: [_files()["vocab.json"]]),
    "safetensors": (safetensors, "model.safetensors", lambda: [_files()["model.safetensors"]]),
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
            if "\n" in str(error) and target is not options:  # YAML's have several lines; the command line joins them
                raise RuntimeError("an error of several lines") from error

    arguments: list[Any] = [sys.argv[0], f"-max_total_time={seconds}", f"-artifact_prefix={work}/", str(work / "seeds")]
    atheris.Setup(arguments, once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
