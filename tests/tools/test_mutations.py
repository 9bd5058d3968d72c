"""The list of mutations fits the sources, and a mutated copy is what the tests see."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Callable

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "mutations.py"


def test_each_pattern_is_found_once_and_changes_something(script: ModuleType) -> None:
    wrong = []
    for mutation in script.MUTATIONS:
        text = (ROOT / "src" / "deeprnn" / mutation.file).read_text(encoding="utf-8")
        if text.count(mutation.old) != 1 or mutation.old == mutation.new:
            wrong.append(f"{mutation.name}: {text.count(mutation.old)} times")
    assert not wrong


def test_mutations_have_names_of_their_own(script: ModuleType) -> None:
    names = Counter(mutation.name for mutation in script.MUTATIONS)
    assert max(names.values()) == 1
    assert sum(mutation.compiled for mutation in script.MUTATIONS) >= 10


def test_mutated_python_is_python(script: ModuleType) -> None:
    for mutation in script.MUTATIONS:
        if not mutation.compiled:
            text = (ROOT / "src" / "deeprnn" / mutation.file).read_text(encoding="utf-8")
            compile(text.replace(mutation.old, mutation.new), mutation.name, "exec")


def test_a_mutated_copy_is_in_its_own_folder(script: ModuleType, tmp_path: Path) -> None:
    mutation = next(each for each in script.MUTATIONS if each.file == "nn/cells.py")
    source = script.mutate(mutation, tmp_path)
    text = (source / "deeprnn" / "nn" / "cells.py").read_text(encoding="utf-8")
    assert mutation.new in text
    origin = subprocess.run(
        [sys.executable, "-c", "import deeprnn; print(deeprnn.__file__)"],
        env={"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert Path(origin.strip()).is_relative_to(tmp_path)


def test_a_pattern_that_is_not_there_is_an_error(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nn/cells.py reads 'nowhere' 0 times, not once"):
        script.mutate(script.Mutation("a slip", "nn/cells.py", "nowhere", ""), tmp_path)


def test_a_slip_in_the_kernels_is_built(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[Path] = []
    monkeypatch.setattr(script, "build", built.append)
    mutation = next(each for each in script.MUTATIONS if each.compiled)
    script.mutate(mutation, tmp_path)
    assert built == [tmp_path]


def test_an_unknown_mutation_is_refused(refusal: Callable[[Sequence[str]], str]) -> None:
    assert "--only 'nowhere' fits no mutation" in refusal(["--only", "nowhere"])
