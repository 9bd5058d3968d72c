#!/usr/bin/env python3
"""Make plausible mistakes in a copy of the package, one at a time: each must make a parity test fail.

    python scripts/mutations.py                     # all, a table
    python scripts/mutations.py --only gru          # those whose name contains 'gru'
    python scripts/mutations.py --json benchmarks/mutations.json

The formulas (cells, unroll) are tested with the native operator switched off; a mistake in the operator's C++ is
compiled in the copy, and tested there.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Optional

# The tools are at the top of the repository, and are not installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from deeprnn import __version__, native
from tools.arguments import Parser
from tools.slips import KERNELS, MUTATIONS, SUITES, Mutation

ROOT = Path(__file__).resolve().parents[1]

LIBRARY = "nn/_kernels.so"
SWITCH = "DEEPRNN_NATIVE"

SETUP = runpy.run_path(str(ROOT / "setup.py"))
SOURCES, LINK = SETUP["SOURCES"], SETUP["LINK"]
# -O1: the same numbers, and a third of the time to compile.
COMPILE = ("g++", *SETUP["FLAGS"], "-O1")
ISAS = {"isa_avx2.cc": "avx2", "isa_avx512.cc": "avx512"}


def mutate(mutation: Optional[Mutation], folder: Path) -> Path:
    """Copy the package into `folder`, with the mutation in it if there is one; the path to import it from.

    Raises
    ------
    ValueError
        If the pattern does not match exactly once.
    """
    source = folder / "src"
    package = source / "deeprnn"
    shutil.copytree(ROOT / "src" / "deeprnn", package, ignore=shutil.ignore_patterns("__pycache__", "configs"))
    if mutation is None:
        return source
    file = package / mutation.file
    text = file.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise ValueError(
            f"{mutation.name}: {mutation.file} reads {mutation.old!r} {text.count(mutation.old)} times, not once"
        )
    file.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    if mutation.compiled:
        build(folder)
    return source


def build(folder: Path) -> None:
    """Build the library in a copy of the package.

    What this processor cannot run is compiled once, without a mutation, only to be linked.

    Raises
    ------
    RuntimeError
        If that fails.
    """
    kernels, library = folder / "src" / "deeprnn" / KERNELS, folder / "src" / "deeprnn" / LIBRARY
    library.unlink(missing_ok=True)
    runs = native.status().instruction_set
    objects = [
        without_mutation(name) if name in ISAS and ISAS[name] != runs else compiled(kernels / name) for name in SOURCES
    ]
    call([*COMPILE, *map(str, objects), *LINK, "-o", str(library)])


def compiled(source: Path, target: Optional[Path] = None) -> Path:
    """The object of a source of the kernels, beside it unless `target` says otherwise."""
    target = target or source.with_suffix(".o")
    version = f'-DDEEPRNN_VERSION="{__version__}"'
    call([*COMPILE, *SOURCES[source.name], version, "-c", str(source), "-o", str(target)])
    return target


@cache
def without_mutation(name: str) -> Path:
    """The object of a source as it is."""
    folder = Path(tempfile.mkdtemp(prefix="deeprnn-mutations-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return compiled(ROOT / "src" / "deeprnn" / KERNELS / name, folder / f"{name}.o")


def call(command: Sequence[str]) -> None:
    """Run a compiler; raises RuntimeError with what it wrote if it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the mutated library could not be built:\n{done.stdout}{done.stderr}")


def run(mutation: Optional[Mutation], suite: str) -> tuple[Optional[str], float]:
    """The first test of the suite that fails, or None; and how long the tests took, in seconds.

    Raises
    ------
    RuntimeError
        If the tests would import another copy of the package, or do not run.
    """
    with tempfile.TemporaryDirectory() as name:
        source = mutate(mutation, Path(name))
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(source), os.environ.get("PYTHONPATH"))))
        if suite == "formulas":
            environment[SWITCH] = "0"
        where = [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('deeprnn').origin)"]
        origin = subprocess.run(where, env=environment, capture_output=True, text=True, check=True).stdout
        if not Path(origin).resolve().is_relative_to(Path(name).resolve()):
            raise RuntimeError(f"the tests would import {origin.strip()}, not the mutated copy")
        tests = [test for test in SUITES[suite] if (ROOT / test.partition("::")[0]).exists()]
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--tb=line", "-rfE", *tests]
        begin = time.perf_counter()
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
    if result.returncode == 0:
        return None, seconds
    if result.returncode < 0:  # the process crashed
        return f"signal {-result.returncode}", seconds
    failed = [line.split(" ")[1] for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR "))]
    if not failed:
        raise RuntimeError(f"pytest did not run:\n{result.stdout}{result.stderr}")
    return failed[0], seconds


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run, print, write; the exit code."""
    parser = Parser(
        prog="mutations.py", description=__doc__.splitlines()[0], done="each was noticed", failed="one survived"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="Mutations whose name contains this.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Write the results to this file.")
    options = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.name]
    if not chosen:
        parser.error(f"--only {options.only!r} fits no mutation")
    return parser.call(lambda: try_all(chosen, options.json))


def try_all(chosen: Sequence[Mutation], file: Optional[Path]) -> int:
    """Run the suites without any mutation, then each mutation; 1 if one survives."""
    seconds_of = {}
    for suite in dict.fromkeys(mutation.suite for mutation in chosen):
        failed, seconds_of[suite] = run(None, suite)
        if failed:
            raise RuntimeError(f"the tests of the {suite} fail without any mutation: {failed}")
        print(f"unmutated {suite}: pass in {seconds_of[suite]:.1f} s: {' '.join(SUITES[suite])}", flush=True)
    records = []
    for mutation in chosen:
        failed, seconds = run(mutation, mutation.suite)
        records.append(
            {"name": mutation.name, "file": mutation.file, "noticed_by": failed, "seconds": round(seconds, 1)}
        )
        print(f"{'noticed' if failed else 'SURVIVED':8} {seconds:5.1f} s  {mutation.name}", flush=True)
    survivors = [record["name"] for record in records if record["noticed_by"] is None]
    noticed = len(records) - len(survivors)
    print(f"{noticed} of {len(records)} noticed; survivors: {', '.join(map(str, survivors)) or 'none'}")
    if file:
        result = {
            "suites": {suite: list(SUITES[suite]) for suite in seconds_of},
            "suite_seconds": {suite: round(seconds, 1) for suite, seconds in seconds_of.items()},
            "mutations": records,
            "survivors": survivors,
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
