"""Set-up and packaging: what is missing is reported in one line, and what is built and locked is whole."""

from __future__ import annotations

import configparser
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
TOOLS = ["awk", "cat", "cksum", "cp", "date", "dirname", "grep", "ldd", "mkdir", "rm", "sed", "sh", "sleep"]
PARTS = ["LICENSE", "README.md", "configs"]
PARTS += ["pyproject.toml", "requirements.lock", "scripts", "setup.cfg", "setup.py", "src", "tools"]
ON_X86 = (platform.system(), platform.machine()) == ("Linux", "x86_64")
LIBRARY = "src/deeprnn/nn/_kernels.so"


def copy_project(folder: Path) -> None:
    """Copy to ``folder`` what set-up and building read."""
    folder.mkdir()
    for part in map(PROJECT.joinpath, PARTS):
        if part.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.so")
            shutil.copytree(part, folder / part.name, symlinks=True, ignore=ignored)
        elif part.exists():
            shutil.copy(part, folder)


class Machine:
    """A path with a few tools on it, and as much of Python, compiler and system as a test wants there to be."""

    def __init__(self, tmp_path: Path) -> None:
        self.project = tmp_path / "a checkout"
        self.log = tmp_path / "log"
        self.variables = {"CC": "cc"}
        self.path = tmp_path / "bin"
        self.path.mkdir()
        for tool in TOOLS:
            os.symlink(shutil.which(tool), self.path / tool)
        self.system("Linux", "x86_64")
        self.command("cc", "exit 0")
        self.command("g++", "echo g++ 12")
        (self.path / "Python.h").touch()
        copy_project(self.project)

    def command(self, name: str, script: str) -> None:
        """Put a command on the path, in place of a tool of that name."""
        file = self.path / name
        file.unlink(missing_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def system(self, name: str, processor: str) -> None:
        """Set what the machine says it is."""
        self.command("uname", f'case "$1" in -s) echo {name} ;; -m) echo {processor} ;; esac')

    def python(
        self,
        name: str = "python3.11",
        *,
        lacks: str = "nothing",
        include: str = "",
        prefix: str = "/usr",
        pip: str = ":",
    ) -> None:
        """Put a Python on the path that says it is version ``name`` and fails where it is asked for ``lacks``.

        It notes calls of pip, then does what ``pip`` says.
        """
        version = name[len("python") :]
        self.command(
            name,
            f"""case "$*" in
                --version) echo Python {version}.0 ;;
                *version_info*) echo {version} ;;
                *sys.executable*) echo "$0" ;;
                *base_prefix*) echo {prefix} ;;
                *'get_path("include")'*) echo '{include or self.path}' ;;
                *'{lacks}'*) exit 1 ;;
                '-m venv'*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
                '-m pip'*) cat >/dev/null; echo "$*" >>'{self.log}'; {pip}
                    case "$*" in *'-e .') : >{LIBRARY} ;; esac ;;
                *build_ext*) echo "$*" >>'{self.log}'; : >{LIBRARY} ;;
            esac""",
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Call the copied project's script."""
        return subprocess.Popen(
            ["/bin/sh", str(self.project / "scripts" / "setup.sh"), *arguments],
            env={"PATH": str(self.path), **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            # Where the tests run in the background, an interrupt is ignored, and a shell cannot trap what is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of the script."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def complaint(self) -> str:
        """The one line with which set-up refuses; nothing else is printed, and nothing is left in the project."""
        code, out, err = self.run()
        assert (code, out) == (1, "")
        assert err.startswith("setup: ")
        assert err.count("\n") == 1, err
        assert not (self.project / ".venv").exists()
        return err

    def installs(self) -> list[str]:
        """The calls of pip, or of uv in its place, so far."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


FINE = (0, "", "")


# --- what a machine may lack


def test_a_machine_with_everything(machine: Machine) -> None:
    machine.python()
    assert machine.run("--check") == FINE


def test_no_python_at_all(machine: Machine) -> None:
    line = machine.complaint()
    assert "no Python 3.9 to 3.13 found:" in line
    assert "apt-get install python3-venv python3-dev" in line
    assert "uv" in line


@pytest.mark.parametrize("version", ["3.8", "3.14"])
def test_only_an_unsuitable_python(machine: Machine, version: str) -> None:
    machine.python(f"python{version}")
    os.symlink(f"python{version}", machine.path / "python3")
    assert f"(python3 is {version})" in machine.complaint()


@pytest.mark.parametrize("version", ["3.9", "3.10", "3.11", "3.12", "3.13"])
def test_python3_serves_where_it_is_a_suitable_one(machine: Machine, version: str) -> None:
    machine.python(f"python{version}")
    (machine.path / f"python{version}").rename(machine.path / "python3")
    assert machine.run("--check") == FINE


def test_a_shim_that_fails_is_passed_over(machine: Machine) -> None:
    for name in ("python3.13", "python3.11", "python3.10"):
        machine.command(name, f"echo 'pyenv: {name}: command not found' >&2; exit 127")
    assert "no Python 3.9 to 3.13 found" in machine.complaint()
    machine.python("python3.9")
    assert machine.run("--check") == FINE


def test_the_newest_python_is_taken_or_the_one_that_is_named(machine: Machine) -> None:
    for version in ("3.10", "3.13", "3.9"):
        machine.python(f"python{version}")
    assert machine.run()[1].startswith("setting up .venv with Python 3.13.0")
    assert machine.run() == FINE
    machine.variables["DEEPRNN_PYTHON"] = "python3.10"
    assert machine.run()[1].startswith("setting up .venv with Python 3.10.0")
    assert machine.run() == FINE
    del machine.variables["DEEPRNN_PYTHON"]
    assert machine.run() == FINE


@pytest.mark.parametrize("version", ["3.8", "3.14"])
def test_a_named_python_that_does_not_suit_is_refused(machine: Machine, version: str) -> None:
    machine.python("python3.12")
    machine.python(f"python{version}")
    machine.variables["DEEPRNN_PYTHON"] = f"python{version}"
    assert f"is no Python 3.9 to 3.13 (python{version} is {version})" in machine.complaint()
    machine.variables["DEEPRNN_PYTHON"] = "nothing"
    assert "DEEPRNN_PYTHON=nothing is no Python 3.9 to 3.13:" in machine.complaint()


def test_the_pythons_are_listed_newest_first_with_those_of_pyenv(machine: Machine) -> None:
    assert machine.run("--list")[0] == 1
    for version in ("3.10", "3.12", "3.11"):
        machine.python(f"python{version}")
    machine.python("python3.9", lacks="ensurepip")
    os.symlink("python3.12", machine.path / "python3")
    (machine.path / "python3.11").rename(machine.path / "of pyenv")
    machine.command(
        "pyenv",
        f"""case "$*" in
            'versions --bare') printf '2.7.18\n3.11.2\n3.11.7\n3.11.7/envs/own\n' ;;
            'which python3.11') [ "$PYENV_VERSION" = 3.11.7 ] && echo '{machine.path}/of pyenv' ;;
        esac""",
    )
    code, out, err = machine.run("--list")
    assert (code, err) == (0, "")
    assert [Path(line).name for line in out.splitlines()] == ["python3.12", "of pyenv", "python3.10"]


def test_a_whole_python_is_taken_before_a_newer_one_that_lacks_something(machine: Machine) -> None:
    machine.python("python3.11", lacks="ensurepip")
    machine.python("python3.10")
    assert machine.run("--check") == FINE


def test_no_compiler(machine: Machine) -> None:
    machine.python()
    machine.command("cc", "exit 1")
    line = machine.complaint()
    assert "a C compiler (cc)" in line
    assert "package manager" in line
    machine.command("apt-get", "exit 0")
    assert machine.complaint().endswith("apt-get install gcc libc6-dev\n")


def test_no_cpp_compiler_is_reported_and_no_failure(machine: Machine) -> None:
    machine.python()
    machine.command("g++", "exit 127")
    code, out, err = machine.run("--check")
    assert (code, out) == (0, "")
    assert err.startswith("setup: no C++ compiler (g++): the layers work, slower")
    assert err.endswith("package manager\n") and err.count("\n") == 1
    machine.command("apt-get", "exit 0")
    code, _, err = machine.run()
    assert code == 0
    assert err.endswith("apt-get install g++\n") and err.count("\n") == 1
    assert machine.run() == FINE
    machine.command("g++", "echo g++ 12")
    assert machine.run()[0] == 0
    assert "build_ext" in machine.installs()[-1]


def test_clang_serves_for_gpp(machine: Machine) -> None:
    machine.python()
    machine.command("g++", "exit 127")
    machine.command("clang++", "exit 0")
    assert machine.run("--check") == FINE


def test_no_headers(machine: Machine) -> None:
    machine.python(include="/nowhere")
    machine.command("apt-get", "exit 0")
    line = machine.complaint()
    assert "Python.h" in line
    assert line.endswith("apt-get install python3.11-dev\n")
    machine.python(include="/nowhere", prefix="/opt/python")
    line = machine.complaint()
    assert "Python.h" in line
    assert "/opt/python" in line
    assert "apt-get" not in line


def test_no_venv_module(machine: Machine) -> None:
    machine.python("python3.10", lacks="ensurepip")
    machine.command("apt-get", "exit 0")
    line = machine.complaint()
    assert "the venv module of Python 3.10" in line
    assert line.endswith("apt-get install python3.10-venv\n")


def test_no_openmp_library(machine: Machine) -> None:
    machine.python(lacks="libgomp.so.1")
    machine.command("apt-get", "exit 0")
    line = machine.complaint()
    assert "libgomp.so.1" in line
    assert line.endswith("apt-get install libgomp1\n")


def test_all_that_is_missing_is_one_line(machine: Machine) -> None:
    machine.python(lacks="import", include="/nowhere")
    machine.command("cc", "exit 1")
    machine.command("apt-get", "exit 0")
    assert machine.complaint().endswith("apt-get install gcc libc6-dev python3.11-dev python3.11-venv libgomp1\n")


@pytest.mark.parametrize(
    ("system", "processor"),
    [("Linux", "aarch64"), ("Linux", "armv7l"), ("Darwin", "arm64"), ("MINGW64_NT-10.0", "x86_64")],
)
def test_no_wheel_for_this_platform(machine: Machine, system: str, processor: str) -> None:
    machine.python()
    machine.system(system, processor)
    assert f"no wheel that runs on {system} {processor}" in machine.complaint()


def test_no_wheel_for_musl(machine: Machine) -> None:
    machine.python()
    machine.command("ldd", "echo 'musl libc (x86_64)' >&2; exit 1")
    assert "musl" in machine.complaint()


# --- what happens to .venv


def test_set_up_once_and_only_once(machine: Machine) -> None:
    machine.python()
    code, out, err = machine.run()
    assert (code, err) == (0, "")
    assert out.startswith("setting up .venv with Python 3.11.0")
    first, second, package = machine.installs()
    assert "--no-deps --require-hashes" in first
    assert "--no-deps --require-hashes -r requirements.lock" in second
    assert "--no-deps -e ." in package

    assert machine.run() == FINE
    assert len(machine.installs()) == 3


def test_uv_makes_venv_and_fetches_python_where_it_is_installed(machine: Machine) -> None:
    machine.python(lacks="-m")
    (machine.path / "python3.11").rename(machine.path / "fetched")
    machine.command(
        "uv",
        f"""case "$*" in
            'python find'*) echo '{machine.path}/fetched' ;;
            venv*) mkdir -p .venv/bin && cp '{machine.path}/fetched' .venv/bin/python ;;
            'pip install'*) cat >/dev/null; echo "$*" >>'{machine.log}'; : >{LIBRARY} ;;
        esac""",
    )
    assert machine.run("--check") == FINE
    code, _, err = machine.run()
    assert (code, err) == (0, "")
    assert len(machine.installs()) == 3
    assert machine.run() == FINE


@pytest.mark.parametrize("file", ["requirements.lock", "setup.cfg"])
def test_a_change_of_what_is_installed_sets_up_again(machine: Machine, file: str) -> None:
    machine.python()
    machine.run()
    with (machine.project / file).open("a") as stream:
        stream.write("# changed\n")
    assert machine.run()[0] == 0
    assert len(machine.installs()) == 6


@pytest.mark.parametrize(
    "change",
    ["setup.py", "src/deeprnn/__init__.py", "src/deeprnn/nn/kernels/call.h", "src/deeprnn/nn/kernels/new.h", LIBRARY],
)
def test_a_change_of_the_kernels_builds_them_alone(machine: Machine, change: str) -> None:
    machine.python()
    machine.run()
    file = machine.project / change
    if change == LIBRARY:
        file.unlink()
    else:
        with file.open("a") as stream:
            stream.write('__version__ = "changed"\n')
    code, out, err = machine.run()
    assert (code, err) == (0, "")
    assert out.startswith("building the native operator")
    assert machine.installs()[3:] == ["setup.py -q build_ext --inplace"]
    assert machine.run() == FINE
    assert len(machine.installs()) == 4


def test_a_build_that_failed_is_heard_of(machine: Machine) -> None:
    machine.python(pip=f"trap 'rm -f {LIBRARY}' EXIT")
    assert machine.run()[0] == 0
    assert machine.installs()[3:] == ["setup.py -q build_ext --inplace"]


def test_other_changes_of_the_package_build_nothing(machine: Machine) -> None:
    machine.python()
    machine.run()
    for name in ("__init__.py", "nn/layers.py"):
        with (machine.project / "src" / "deeprnn" / name).open("a") as stream:
            stream.write("# changed\n")
    assert machine.run() == FINE


def test_a_moved_project_sets_up_again(machine: Machine) -> None:
    machine.python()
    machine.run()
    machine.project = machine.project.rename(machine.project.with_name("elsewhere"))
    assert machine.run()[0] == 0
    assert len(machine.installs()) == 6


def test_a_failed_install_leaves_no_venv(machine: Machine) -> None:
    machine.python(pip="echo 'ERROR: no network' >&2; exit 1")
    code, _, err = machine.run()
    assert code == 1
    assert err.splitlines()[0] == "ERROR: no network"
    assert err.splitlines()[-1].startswith("setup: the locked dependencies could not be installed")
    assert not (machine.project / ".venv").exists()
    machine.python()
    assert machine.run()[0] == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_venv(machine: Machine, number: signal.Signals) -> None:
    machine.python(pip="exec sleep 60")
    process = machine.start()
    while not machine.installs():
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, number)
    process.communicate(timeout=10)
    assert process.returncode == 128 + number
    assert not (machine.project / ".venv").exists()


@pytest.mark.parametrize("worker", [999999999, 1])
def test_a_half_made_venv_is_made_anew(machine: Machine, worker: int) -> None:
    machine.python()
    venv = machine.project / ".venv"
    venv.mkdir()
    (venv / "rest").touch()
    (venv / "deeprnn-setup").write_text(f"at work: {worker}\n")  # gone, or another process by now
    assert machine.run()[0] == 0
    assert not (venv / "rest").exists()


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="only /proc tells which process is at work")
def test_two_at_once_do_not_meet(machine: Machine) -> None:
    machine.python(pip="exec sleep 60")
    first = machine.start()
    while not machine.installs():
        assert first.poll() is None
        time.sleep(0.01)
    code, out, err = machine.run()
    assert (code, out) == (1, "")
    assert err.startswith(f"setup: another set-up is at work (process {first.pid})")
    assert (machine.project / ".venv").exists()
    os.killpg(first.pid, signal.SIGTERM)
    first.communicate(timeout=10)


def test_a_venv_of_the_users_own_is_left_alone(machine: Machine) -> None:
    machine.python()
    own = machine.project / ".venv" / "own"
    own.mkdir(parents=True)
    code, out, err = machine.run()
    assert (code, out) == (1, "")
    assert err.startswith("setup: .venv was not made by this script")
    assert err.count("\n") == 1
    assert own.exists()


# --- what is locked and built


def locked() -> dict[str, str]:
    """Each entry of the lock: its first line to all of it."""
    entries = re.split(r"^(?=[a-z])", (PROJECT / "requirements.lock").read_text(), flags=re.MULTILINE)[1:]
    return {entry.partition(" ")[0]: entry for entry in entries}


def test_the_lock_names_versions_and_hashes_and_no_addresses() -> None:
    entries = locked()
    for requirement, entry in entries.items():
        assert re.fullmatch(r"[a-z0-9.\-]+(\[[a-z]+\])?==[0-9][0-9a-z.]*", requirement)
        assert "--hash=sha256:" in entry
    text = (PROJECT / "requirements.lock").read_text()
    for word in ("://", "index-url", "find-links", " @ ", "/"):
        assert word not in text
    assert "torch" not in {requirement.partition("==")[0] for requirement in entries}


def test_the_lock_holds_what_has_to_be_held() -> None:
    versions = [tuple(requirement.split("==")) for requirement in locked()]
    assert ("mxnet", "1.9.1") in versions and ("gluonnlp", "0.10.0") in versions
    # 1.26 where it has wheels, which is as mxnet's own metadata has it; beyond, no such thing is left.
    assert {version.split(".")[0] for name, version in versions if name == "numpy"} == {"1", "2"}
    assert {"cython", "setuptools"} <= dict(versions).keys()  # what gluonnlp's extension is built with


def test_the_lock_answers_every_requirement() -> None:
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    groups = [setup["options"]["install_requires"]]
    groups += [setup["options.extras_require"][extra] for extra in ("test", "dev", "tensorboard")]
    lines = [line for group in groups for line in group.splitlines() if line and not line.startswith("#")]
    wanted = {re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in lines}
    assert wanted <= {re.split(r"[\[=]", requirement)[0] for requirement in locked()}


REASON = (
    "/bin/false failed (exit code 1)"
    if ON_X86
    else f"it is for Linux on x86-64, and this is {platform.system()} on {platform.machine()}"
)
COMPILER = """#!/bin/sh
echo "$*" >>{log}
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo built >"$2"; shift; done
"""


def build(tmp_path: Path, hook: str, compiler: object) -> tuple[str, set[str], str]:
    """Build the package with a C++ compiler, such as it is: name and contents, and what deeprnn prints meanwhile."""
    pytest.importorskip("setuptools", minversion="70.1", reason="setuptools 70.1 makes wheels without another package")
    copy_project(tmp_path / "project")
    command = f"import sys; from setuptools import build_meta; build_meta.{hook}(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", command, str(tmp_path)],
        cwd=tmp_path / "project",
        env={**os.environ, "CXX": shlex.quote(str(compiler))},
        check=True,
        capture_output=True,
        text=True,
    )
    printed = "".join(line for line in done.stderr.splitlines(keepends=True) if "deeprnn:" in line)
    (built,) = (file for file in tmp_path.iterdir() if file.name.endswith((".whl", ".tar.gz")))
    if hook == "build_sdist":
        with tarfile.open(built) as archive:
            return built.name, {name.partition("/")[2] for name in archive.getnames()}, printed
    with zipfile.ZipFile(built) as archive:
        return built.name, set(archive.namelist()), printed


def test_a_wheel_holds_types_presets_and_the_command(tmp_path: Path) -> None:
    name, names, printed = build(tmp_path, "build_wheel", "/bin/false")
    assert name.endswith("-py3-none-any.whl")
    assert printed == f"deeprnn: built without its native operator: {REASON}; the layers work, slower\n"
    (metadata,) = (name for name in names if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(tmp_path / name) as archive:
        assert "deeprnn = deeprnn.cli.main:main" in archive.read(metadata).decode()
    presets = {f"deeprnn/configs/{preset.name}" for preset in (PROJECT / "configs").glob("*.yaml")}
    assert {"deeprnn/__init__.py", "deeprnn/nn/layers.py", "deeprnn/py.typed", "deeprnn-mxnet.pth", *presets} <= names
    assert not {name for name in names if name.startswith(("tools/", "benchmarks/", "tests/"))}
    assert not {name for name in names if "kernels" in name}


def test_an_install_in_place_has_mxnet_load_in_any_order_as_well(tmp_path: Path) -> None:
    _, names, _ = build(tmp_path, "build_editable", "/bin/false")
    assert "deeprnn-mxnet.pth" in names
    assert not {name for name in names if name.endswith(".py")}


@pytest.mark.skipif(not ON_X86, reason="the native operator is for Linux on x86-64")
def test_a_wheel_with_the_library_is_for_any_python_on_this_platform(tmp_path: Path) -> None:
    compiler, log = tmp_path / "a compiler", tmp_path / "log"
    compiler.write_text(COMPILER.format(log=log))
    compiler.chmod(0o755)
    name, names, printed = build(tmp_path, "build_wheel", compiler)
    assert name.endswith("-py3-none-linux_x86_64.whl")
    assert printed == ""
    assert "deeprnn/nn/_kernels.so" in names
    assert {name for name in names if "kernels" in name} == {"deeprnn/nn/_kernels.so"}
    assert not {name for name in names if ".data/" in name}
    *compiled, linked = sorted(log.read_text().splitlines(), key=lambda line: "-shared" in line)
    for line in compiled:
        assert ("-mavx2" in line) == ("isa_avx2.cc" in line)
        assert ("-mavx512f" in line) == ("isa_avx512.cc" in line)
        assert ("-DDEEPRNN_VERSION=" in line) == ("operator.cc" in line)
    # What is general first: a function that several files compile is taken from the first of them.
    general = ["operator", "process", "inference", "team"]
    assert re.findall(r"(\w+)\.cc\.o", linked) == [*general, "isa_avx2", "isa_avx512"]
    assert "fast-math" not in log.read_text()


def test_the_source_distribution_holds_the_kernels(tmp_path: Path) -> None:
    _, names, _ = build(tmp_path, "build_sdist", "/bin/false")
    kernels = {str(path.relative_to(PROJECT)) for path in (PROJECT / "src/deeprnn/nn/kernels").glob("*.*")}
    assert {"setup.py", *kernels} <= names


def test_the_extension_of_gluonnlp_is_built() -> None:
    pytest.importorskip("gluonnlp", reason="a dependency of the package: make setup")
    from gluonnlp.data import fast_bert_tokenizer

    assert fast_bert_tokenizer.__file__.endswith(sysconfig.get_config_var("EXT_SUFFIX"))
    assert fast_bert_tokenizer.BasicTokenizer(True).tokenize("Two, layers") == ["two", ",", "layers"]
