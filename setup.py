"""Builds the native operator, where it can be built: `deeprnn/nn/_kernels.so`. What the package is stands in setup.cfg.

The operator makes the layers fast and changes nothing else. So where there is no C++ compiler, or one that fails, and
on anything but Linux on x86-64, one line on stderr says so, and the package is built and installed without.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

KERNELS = "src/deeprnn/nn/kernels"

# CFLAGS and CXXFLAGS are not read: the instructions of each file are what the choice at run time rests on. And never
# -ffast-math, in compiling or linking: gcc then flushes denormals to zero in the whole process.
FLAGS = ["-O3", "-std=c++17", "-fPIC", "-ffp-contract=fast", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-psabi"]
# In the order in which they are linked. A function that several of them compile is taken from the first one, which must
# not be one with instructions that only some processors have.
SOURCES = {
    "operator.cc": [],
    "process.cc": [],
    "inference.cc": [],
    "team.cc": [],
    "isa_avx2.cc": ["-mavx2", "-mfma"],
    "isa_avx512.cc": ["-mavx512f", "-mavx512dq", "-mavx512vl"],
}
LINK = ["-shared", "-static-libstdc++", "-static-libgcc", "-lpthread"]


# Python reads it at its start where it lies beside the package; what it is for: docs/pythons.md.
START = "src/deeprnn/mxnet.pth"


class NotBuilt(Exception):
    """Why there is no library, in a few words."""


def compiler() -> list[str]:
    """The command of a C++ compiler: what CXX says, else g++ or clang++."""
    if (platform.system(), platform.machine(), struct.calcsize("P")) != ("Linux", "x86_64", 8):
        raise NotBuilt(f"it is for Linux on x86-64, and this is {platform.system()} on {platform.machine()}")
    for command in map(shlex.split, [os.environ.get("CXX", "")] if os.environ.get("CXX") else ["g++", "clang++"]):
        if command and shutil.which(command[0]):
            return command
    raise NotBuilt(f"there is no C++ compiler ({os.environ.get('CXX') or 'g++'})")


def call(command: list[str]) -> None:
    """Run a compiler. What it warns of is passed on; where it fails, its first error says why."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        said = [line for line in done.stdout.splitlines() if "error" in line] or done.stdout.splitlines()
        raise NotBuilt(f"{command[0]} failed ({said[0].strip() if said else f'exit code {done.returncode}'})")
    sys.stderr.write(done.stdout)


def build(library: Path, version: str) -> None:
    """Compile and link the library, which tells its version."""
    command = compiler()
    with tempfile.TemporaryDirectory() as scratch:

        def compiled(source: str) -> str:
            of_file = [f'-DDEEPRNN_VERSION="{version}"'] if source == "operator.cc" else SOURCES[source]
            target = os.path.join(scratch, source + ".o")
            call([*command, *FLAGS, *of_file, "-c", f"{KERNELS}/{source}", "-o", target])
            return target

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compiled, SOURCES))
        # Under another name first: a process that has the old file open keeps it.
        linked = os.path.join(scratch, library.name)
        call([*command, *objects, *LINK, "-o", linked])
        library.parent.mkdir(parents=True, exist_ok=True)
        library.unlink(missing_ok=True)
        shutil.copy(linked, library)


class BuildKernels(build_ext):
    """Builds each source with its own flags, or nothing."""

    def get_ext_filename(self, fullname: str) -> str:
        """A plain name: it is loaded by its path and not imported, and serves any Python."""
        return os.path.join(*fullname.split(".")) + ".so"

    def build_extensions(self) -> None:
        """Build the library. Where that fails, this is from here on a package of Python alone."""
        for extension in self.extensions:
            library = Path(self.get_ext_fullpath(extension.name))
            try:
                build(library, self.distribution.get_version())
            except (NotBuilt, OSError) as error:
                print(f"deeprnn: built without its native operator: {error}; the layers work, slower", file=sys.stderr)
                # Neither an older one that lies about.
                library.unlink(missing_ok=True)
                Path("src", self.get_ext_filename(extension.name)).unlink(missing_ok=True)
                self.extensions = self.distribution.ext_modules = []


class BuildPackage(build_py):
    """Puts beside the package what has mxnet imported under today's numpy, whatever is imported first."""

    def run(self) -> None:
        """Build the package; where it is to be installed in place (-e), the file alone is part of the wheel."""
        super().run()
        folder = self.get_finalized_command("install").install_lib if self.editable_mode else self.build_lib
        self.copy_file(START, os.path.join(folder, "deeprnn-mxnet.pth"))


class Wheel(bdist_wheel):
    """A wheel with the library is one for any Python on this platform, and one without it for any platform."""

    def run(self) -> None:
        """Build first: only then is it known which of the two it is."""
        if not self.skip_build:
            self.run_command("build")
            self.skip_build = True
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        """Python, its binary interface, platform."""
        python, interface, platform_tag = super().get_tag()
        return (python, interface, platform_tag) if self.root_is_pure else ("py3", "none", platform_tag)


if __name__ == "__main__":
    sources = [f"{KERNELS}/{name}" for name in SOURCES]
    headers = sorted(path.as_posix() for path in Path(KERNELS).glob("*.h"))
    setup(
        ext_modules=[Extension("deeprnn.nn._kernels", sources, depends=headers)],
        cmdclass={"build_py": BuildPackage, "build_ext": BuildKernels, "bdist_wheel": Wheel},
    )
