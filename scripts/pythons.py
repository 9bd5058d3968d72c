#!/usr/bin/env python3
"""`make test` and a training on each Python here, in copies of this checkout, with no other Python on the PATH.

python scripts/pythons.py                                        # all that scripts/setup.sh --list finds
python scripts/pythons.py python3.9 python3.13                   # these
python scripts/pythons.py --json benchmarks/pythons.json         # the rows go into the record, too
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any, Optional

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn._util.files import write_json_atomic
from deeprnn._util.machine import machine
from tools.arguments import Parser

ROOT = Path(__file__).resolve().parents[1]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "*.egg-info", "*.so", "build", "runs")

# A text that is the same everywhere.
TRAINING = ["train", "--corpus=LICENSE", "--epochs=3", "--layers=2", "--hidden-size=64", "--seed=1"]
VERSIONS = "from deeprnn._util.machine import versions; import json; print(json.dumps(versions()))"


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run, print, write; the exit code."""
    parser = Parser(
        prog="pythons.py", description=__doc__.splitlines()[0], done="all tests passed", failed="something failed"
    )
    parser.add_argument("python", nargs="*", help="Commands or files. (default: all that set-up can use)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the rows there; other Pythons' rows stay.")
    options = parser.parse_args(arguments)
    return parser.call(lambda: try_all(options.python or found(), options.json))


def found() -> list[str]:
    """The Pythons on this machine that set-up can use, newest first."""
    command = ["scripts/setup.sh", "--list"]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()


def try_all(pythons: Sequence[str], file: Optional[Path]) -> int:
    """Try each Python; 1 if anything fails on one of them."""
    with tempfile.TemporaryDirectory() as scratch:
        # A copy of it as it is now: each row changes the record, with which tests compare the pages' tables.
        checkout = Path(scratch) / "checkout"
        shutil.copytree(ROOT, checkout, symlinks=True, ignore=NOT_COPIED)
        rows = [tried(python, checkout, file) for python in pythons]
    failed = [row["python"] for row in rows if not row["whole"]]
    if failed:
        print(f"failed on {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def only(python: str, folder: Path) -> str:
    """A PATH with this Python and all commands of ours that have nothing to do with Python: links in a folder."""
    folder.mkdir()
    (folder / "python3").symlink_to(Path(shutil.which(python) or python).resolve(strict=True))
    for each in os.environ["PATH"].split(os.pathsep):
        for file in sorted(Path(each).glob("*")):
            link = folder / file.name
            if not re.match(r"py|pip", file.name) and not link.is_symlink() and os.access(file, os.X_OK):
                link.symlink_to(file)
    return str(folder)


def tried(python: str, checkout: Path, file: Optional[Path]) -> dict[str, Any]:
    """Set up, run the tests, train; the row of the table, which is written into the record."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "PATH": only(python, Path(scratch) / "bin"), "OMP_NUM_THREADS": "1"}
        environment.pop("DEEPRNN_PYTHON", None)
        project = Path(scratch) / "deeprnn"
        shutil.copytree(checkout, project, symlinks=True)

        def call(*command: str) -> tuple[str, float]:
            """Output and seconds; what is on stderr is passed on."""
            begin = time.perf_counter()
            done = subprocess.run(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True)
            return done.stdout, round(time.perf_counter() - begin, 1)

        output, set_up = call("make")
        inside = str(project / ".venv" / "bin" / "python")
        if not Path(inside).exists():
            raise RuntimeError(f"{python}: set-up failed: {output.strip()} (see above)")
        row = {**json.loads(call(inside, "-W", "ignore", "-c", VERSIONS)[0]), "set_up_seconds": set_up}
        print(f"Python {row['python']}, numpy {row['numpy']}: set up in {set_up} s", flush=True)
        call(inside, "-W", "ignore", "-m", "deeprnn", *TRAINING, f"--out={project / 'run'}")
        metrics = project / "run" / "metrics.jsonl"
        epochs = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        row["losses"] = [[epoch["train_loss"], epoch["valid_loss"]] for epoch in epochs]
        output, row["test_seconds"] = call("make", "test")
    last = output.splitlines()[-1] if output.strip() else ""
    row.update((kind, int(count)) for count, kind in re.findall(r"(\d+) (passed|failed|errors?|skipped)", last))
    row["whole"] = bool(row["losses"]) and "passed" in row and not {"failed", "error", "errors"} & set(row)
    print(f"Python {row['python']}, numpy {row['numpy']}: {last}", flush=True)
    if not row["whole"]:
        print(output, file=sys.stderr)
    if file:
        write(file, row)
    return row


def write(file: Path, row: dict[str, Any]) -> None:
    """Put a row into the record, in place of the one of the same Python."""
    rows = json.loads(file.read_text(encoding="utf-8"))["pythons"] if file.exists() else []
    rows = [row, *(other for other in rows if other["python"] != row["python"])]
    rows.sort(key=lambda row: [int(part) for part in row["python"].split(".")])
    here = {key: value for key, value in machine().items() if key in ("processor", "cores", "instruction_set", "code")}
    write_json_atomic(file, {"date": date.today().isoformat(), "machine": here, "training": TRAINING, "pythons": rows})


if __name__ == "__main__":
    sys.exit(main())
