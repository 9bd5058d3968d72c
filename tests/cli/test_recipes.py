"""The recipes of docs/several_processes.md, as they are written, but for addresses and folders; with stand-ins."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import yaml
from commands import PROJECT, SOURCES, distance
from processes import PATIENT, SAME, alone

from deeprnn.cli.launch import free_port

PAGE = (PROJECT / "docs" / "several_processes.md").read_text(encoding="utf-8")
KUBERNETES = (PROJECT / "docs" / "examples" / "several_processes.yaml").read_text(encoding="utf-8")

STANDINS = {
    # Small options come last, and so win.
    "deeprnn": f"""
        export PYTHONPATH={SOURCES} OMP_NUM_THREADS=1
        exec {sys.executable} -W ignore -m deeprnn "$@" {" ".join(SAME)}""",
    # A shell on the other host, that has nothing of this environment, and starts in another folder.
    "ssh": '[ "$1" = -n ] && shift\nshift\ncd / && exec env -i PATH="$PATH" bash -c "$*"',
    "getent": f"""
        [ "$*" = "ahostsv4 deeprnn-0.deeprnn" ] && exec echo "127.0.0.1 STREAM $2"
        exec {shutil.which("getent")} "$@"
    """,
    "scontrol": '[ "$*" = "show hostnames a,b" ] && printf "localhost\\nb\\n"',
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        for ((task = 0; task < SLURM_NTASKS; task++)); do SLURM_PROCID=$task "$@" & started+=($!); done
        for process in "${started[@]}"; do wait "$process" || exit; done""",
}


def recipe(heading):
    """The code below a heading."""
    return re.search(rf"^### {heading}\n.*?^```bash\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)[1]


@pytest.fixture
def run(text, tmp_path):
    """Run scripts at the same time, each with variables of its own; they have to train as one process does."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, content in STANDINS.items():
        (folder / name).write_text(f"#!/bin/bash\n{content}\n")
        (folder / name).chmod(0o755)
    shutil.copy(text, tmp_path / "book.txt")

    def all_of(*scripts):
        processes = [
            subprocess.Popen(
                ["bash", "-c", script],
                env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", **variables},
                cwd=tmp_path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            for script, variables in scripts
        ]
        try:
            output = [process.communicate(timeout=PATIENT)[0] for process in processes]
        finally:
            for process in processes:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    process.wait()
        assert [process.returncode for process in processes] == [0] * len(processes), output
        assert json.loads((tmp_path / "runs" / "book" / "summary.json").read_text())["epochs"] == 1, output
        assert "".join(output).count("test loss") == 1 and "error" not in "".join(output)  # of worker 0 alone
        assert distance(tmp_path / "runs" / "book", alone(text, tmp_path / "one")) < 1e-5

    return all_of


@pytest.mark.slow
def test_ssh(run, tmp_path):
    script = recipe("By ssh")
    for here, there in (
        ("10.0.0.1", "127.0.0.1"),
        ("10.0.0.2", "127.0.0.1"),
        ("PORT=9091", f"PORT={free_port()}"),
        ("eth0", "lo"),
        ("/shared/project", str(tmp_path)),
    ):
        assert here in script
        script = script.replace(here, there)
    run((script, {}))


@pytest.mark.slow
def test_slurm(run):
    script = recipe("Slurm")
    tasks = re.search(r"^#SBATCH --ntasks=(\d+)$", script, flags=re.MULTILINE)[1]
    while not 20_000 <= (port := free_port()) < 40_000:
        pass
    job = {"SLURM_NTASKS": tasks, "SLURM_JOB_ID": str(port - 20_000), "SLURM_JOB_NODELIST": "a,b"}
    run((script, job))


def test_the_objects_of_kubernetes_fit_together():
    service, job = yaml.safe_load_all(KUBERNETES)
    assert [each["kind"] for each in (service, job)] == ["Service", "Job"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"] and service["spec"]["clusterIP"] == "None"
    (container,) = pod["containers"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    counts = [int(variables[f"DMLC_NUM_{role}"]) for role in ("SERVER", "WORKER")]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == 1 + sum(counts)
    assert f"name={job['metadata']['name']}-0.{service['metadata']['name']}\n" in container["command"][2]
    assert [each["name"] for each in container["volumeMounts"]] == [each["name"] for each in pod["volumes"]]
    assert container["workingDir"] == container["volumeMounts"][0]["mountPath"]


@pytest.mark.slow
def test_kubernetes(run):
    _, job = yaml.safe_load_all(KUBERNETES)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    bash, c, script = container["command"]
    assert [bash, c] == ["bash", "-c"]
    variables = {each["name"]: each["value"] for each in container["env"]}
    variables["DMLC_PS_ROOT_PORT"] = str(free_port())
    pods = [(script, {**variables, "JOB_COMPLETION_INDEX": str(index)}) for index in range(job["spec"]["completions"])]
    run(*pods)
