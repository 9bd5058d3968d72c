"""Cuts the power while checkpoints are written, in a model of a file system that keeps only what was flushed.

    python -m tools.faults.power [SCHEDULES]

The operations of the writer are recorded: files written, flushed, renamed, removed, folders flushed. Then the power is
cut after any of them. Of a file that was not flushed, a part is left or nothing; of the changes of a folder since it
was last flushed, any subset has reached the disk, in any order. Then there must be a whole checkpoint, no older than
the last one that was finished.
"""

from __future__ import annotations

import builtins
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from deeprnn._util import files
from deeprnn.train import storage

from .calls import step_of, write

__all__ = ["record", "survives"]

Operation = tuple[str, ...]


@contextmanager
def recorded(operations: list[Any]) -> Iterator[None]:
    """A context that appends the operations on files to a list, with their content."""
    opened, replace, unlink, fsync = builtins.open, os.replace, os.unlink, os.fsync

    def recorded_open(path: Any, *arguments: Any, **options: Any) -> Any:
        operations.append(("create", str(path)))
        return opened(path, *arguments, **options)

    def recorded_replace(source: Any, target: Any) -> None:
        replace(source, target)
        operations.append(("rename", str(source), str(target)))

    def recorded_unlink(path: Any, **options: Any) -> None:
        unlink(path, **options)
        operations.append(("remove", str(path)))

    def recorded_fsync(handle: int) -> None:
        fsync(handle)
        path = os.readlink(f"/proc/self/fd/{handle}")
        if os.path.isdir(path):
            operations.append(("flush folder",))
        else:
            with opened(path, "rb") as file:
                operations.append(("flush", path, file.read()))

    with (
        mock.patch.object(files, "open", recorded_open, create=True),
        mock.patch.object(os, "replace", recorded_replace),
        mock.patch.object(os, "unlink", recorded_unlink),
        mock.patch.object(os, "fsync", recorded_fsync),
    ):
        yield


def record(folder: Path, checkpoints: int) -> list[Any]:
    """The operations of writing so many checkpoints, with a mark where each was finished."""
    operations: list[Any] = []
    with recorded(operations):
        for step in range(1, checkpoints + 1):
            write(folder, step)
            operations.append(("finished", step))
    return operations


def survives(operations: list[Any], rng: random.Random, folder: Path) -> tuple[int, int]:
    """Cut the power at a random moment, and put what is left into `folder`.

    Returns
    -------
    finished, found
        The last checkpoint that was finished, and the newest whole one that is left; 0 for none.
    """
    flushed: dict[str, bytes] = {}  # by the name that a file was written under
    durable: dict[str, str] = {}  # what the folder on the disk has: names, and the names they were written under
    pending: list[Any] = []
    finished = 0
    for kind, *what in operations[: rng.randrange(len(operations) + 1)]:
        if kind == "flush":
            flushed[what[0]] = what[1]
        elif kind == "flush folder":
            for change in pending:
                apply(durable, change)
            pending = []
        elif kind == "finished":
            finished = what[0]
        else:
            pending.append((kind, *what))
    reached = [change for change in pending if rng.random() < 0.5]
    rng.shuffle(reached)
    for change in reached:
        apply(durable, change)
    for name, written in durable.items():
        content = flushed.get(written)
        if content is None:
            content = bytes(rng.randrange(3) * 100)  # the length has reached the disk, the data has not
        (folder / Path(name).name).write_bytes(content)
    return finished, newest(folder)


def newest(folder: Path) -> int:
    """The step of the newest checkpoint that is whole; 0 if there is none."""
    for path in storage.manifests(folder):
        try:
            return step_of(path)
        except ValueError:
            continue
    return 0


def apply(folder: dict[str, str], change: Operation) -> None:
    """Make a change of a folder; changes may come in any order."""
    kind, path, *rest = change
    if kind == "create":
        folder[path] = path
    elif kind == "rename":
        folder[rest[0]] = path
        folder.pop(path, None)
    else:
        folder.pop(path, None)


def main() -> int:
    """Many schedules; prints how many left the last finished checkpoint, or a newer one."""
    schedules = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory() as work:
        operations = record(Path(work) / "recorded", 6)
        for schedule in range(schedules):
            folder = Path(work) / str(schedule)
            folder.mkdir()
            finished, found = survives(operations, random.Random(schedule), folder)
            if found < finished:
                print(f"schedule {schedule}: checkpoint {finished} was finished, and {found} is left")
                return 1
    print(f"{schedules} of {schedules} schedules left the last finished checkpoint or a newer one")
    return 0


if __name__ == "__main__":
    sys.exit(main())
