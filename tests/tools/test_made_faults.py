"""The fast forms of the faults in tools/faults; the long ones are run by hand, see docs/runs.md."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading

import pytest

from tools.faults import damage, kill, power
from tools.faults.calls import FAULTS, ROOT, whole, write

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def tool(name, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-W", "ignore", "-m", f"tools.faults.{name}", *arguments]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600, **options)


@linux
@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_each_system_call_of_a_checkpoint_killed_or_failing():
    done = tool("calls", "SIGKILL", "ENOSPC", "short write")
    assert (done.returncode, done.stderr) == (0, "")
    seen = json.loads(done.stdout)
    assert seen["SIGKILL"]["killed"] == seen["SIGKILL"]["calls"] > 20
    assert seen["ENOSPC"]["stopped"] > 20
    assert seen["short write"]["went on"] == seen["short write"]["calls"]
    assert set(seen) < set(FAULTS)


@linux
def test_lost_power(tmp_path):
    operations = power.record(tmp_path / "recorded", 5)
    for schedule in range(60):
        folder = tmp_path / str(schedule)
        folder.mkdir()
        finished, found = power.survives(operations, random.Random(schedule), folder)
        assert found >= finished


@linux
@pytest.mark.parametrize("lacking", ["flush", "flush folder"])
def test_the_model_of_lost_power_notices_what_is_not_flushed(tmp_path, lacking):
    operations = [each for each in power.record(tmp_path / "recorded", 5) if each[0] != lacking]
    lost = 0
    for schedule in range(60):
        folder = tmp_path / str(schedule)
        folder.mkdir()
        finished, found = power.survives(operations, random.Random(schedule), folder)
        lost += found < finished
    assert lost


def test_damaged_checkpoints(tmp_path):
    seen = damage.damaged_checkpoints(150, tmp_path / "checkpoint")
    assert seen["refused"] > 140


@pytest.mark.parametrize("name", damage.PACKED)
def test_damaged_texts(tmp_path, name):
    assert damage.damaged_texts(name, 100, tmp_path)["refused"] > 80


def test_a_writer_that_stops_nowhere_and_a_reader(tmp_path):
    """Whoever reads while checkpoints are written finds a whole one."""
    write(tmp_path, 1)
    stop = threading.Event()

    def writer():
        for step in range(2, 40):
            write(tmp_path, step)
        stop.set()

    thread = threading.Thread(target=writer)
    thread.start()
    seen = set()
    while not stop.is_set():
        seen.add(power.newest(tmp_path))
    thread.join()
    assert len(seen) > 1 and whole(tmp_path)[0] == 39


@linux
def test_a_file_that_may_not_grow(tmp_path):
    """As on a full disk: the checkpoint before is whole."""
    write(tmp_path, 1)
    code = "import sys; from pathlib import Path; from tools.faults.calls import write; write(Path(sys.argv[1]), 2)"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert "File too large" in done.stderr
    assert whole(tmp_path) == [1]


@linux
@pytest.mark.skipif(os.getuid() != 0, reason="only root mounts")
def test_a_disk_that_is_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        done = []
        with pytest.raises(OSError, match="No space left"):
            for step in range(1, 50):
                write(disk / "run", step)
                done.append(step)
                (disk / f"other-{step}").write_bytes(bytes(2000))
        assert whole(disk / "run")[0] == done[-1]
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            write(disk / "run", 99)
        assert whole(disk / "run")[0] == done[-1]
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_folder_that_is_gone(tmp_path):
    write(tmp_path / "run", 1)
    shutil.rmtree(tmp_path / "run")
    write(tmp_path / "run", 2)
    assert whole(tmp_path / "run") == [2]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"File exists|Not a directory"):
        write(tmp_path / "file", 1)


@pytest.mark.slow
@linux
def test_killed_many_times(tmp_path):
    assert kill.killed_and_resumed(tmp_path, kills=10, epochs=10, longest=1.0)["killed"] == 10


@pytest.mark.slow
@linux
def test_endurance():
    done = tool("endurance", "10000")
    seen = json.loads(done.stdout)
    assert seen["memory"] < 1.03 and seen["last tenth"]["open_files"] == seen["second tenth"]["open_files"]
