#!/bin/sh
# Makes .venv: finds a Python, installs the locked dependencies and this package. Does nothing where that is done.
#
#   scripts/setup.sh           set up
#   scripts/setup.sh --check   only look whether this machine has what set-up needs
#   scripts/setup.sh --list    each Python here that set-up can use, newest first
#
# The newest of them is used, or the one that DEEPRNN_PYTHON names (DEEPRNN_PYTHON=python3.10 make).
#
# What is missing is reported in one line on stderr, with exit code 1. A missing C++ compiler is reported too, and is no
# failure: without one the layers are slower.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
unset PYTHONHOME PYTHONPATH
# A user's settings for other installs (into the home folder, into a target) have no place in .venv.
unset PIP_TARGET PIP_PREFIX
export PIP_USER=0 PIP_DISABLE_PIP_VERSION_CHECK=1

fail() {
    printf 'setup: %s\n' "$1" >&2
    exit 1
}

# Written last, so that a .venv counts only when it is finished, and only for this lock, this Python and this place
# (an editable install holds the absolute path). Until then it holds the process that is at work.
stamp=.venv/deeprnn-setup
fingerprint() {
    { pwd; .venv/bin/python --version; cat requirements.lock setup.cfg; } 2>&1 | cksum
}

# The native operator is made anew by itself, in a fraction of the time: when its sources, its version, the compiler or
# the library itself are not what they were.
library=src/deeprnn/nn/_kernels.so
kernels_stamp=.venv/deeprnn-kernels
kernels_fingerprint() {
    {
        cat setup.py src/deeprnn/nn/kernels/*
        grep __version__ src/deeprnn/__init__.py
        ${CXX:-g++} --version
        [ ! -e $library ] || echo built
    } 2>&1 | cksum
}

if [ $# -eq 0 ] && [ -e "$stamp" ] && [ "$(cat "$stamp")" = "$(fingerprint)" ] &&
    { [ -z "${DEEPRNN_PYTHON-}" ] || [ "$("$DEEPRNN_PYTHON" --version 2>&1)" = "$(.venv/bin/python --version)" ]; }; then
    if [ "$(cat "$kernels_stamp" 2>&1)" != "$(kernels_fingerprint)" ]; then
        echo "building the native operator (half a minute)"
        .venv/bin/python setup.py -q build_ext --inplace || fail "the native operator could not be built (above)"
        kernels_fingerprint >"$kernels_stamp"
    fi
    exit 0
fi

# --- what this machine must have

case "$(uname -s) $(uname -m)" in
    'Linux x86_64')
        if ldd --version 2>&1 | grep -qi musl; then
            fail "mxnet 1.9.1 has no wheel for musl (Alpine and the like): use a Linux with glibc, such as Debian or Ubuntu"
        fi ;;
    'Darwin x86_64') ;;
    # There is a file for 64-bit ARM Linux, but it needs ARM's Performance Libraries, which nothing installs.
    *) fail "mxnet 1.9.1 has no wheel that runs on $(uname -s) $(uname -m): use Linux on x86-64 (on Windows: WSL)" ;;
esac

# A shim of pyenv may be on the path and fail when it is called: each candidate is run, not just looked up.
runs() { "$@" >/dev/null 2>&1; }
if runs uv --version; then uv=yes; else uv=; fi

# One line on what is missing to build and run with the interpreter $1; nothing where all is there.
lacks() {
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    prefix=$("$1" -c 'import sys; print(sys.base_prefix)')
    compiler=${CC:-$("$1" -c 'import sysconfig; print(sysconfig.get_config_var("CC") or "cc")')}
    include=$("$1" -c 'import sysconfig; print(sysconfig.get_path("include"))')
    if runs command -v apt-get; then apt=yes; else apt=; fi
    missing='' packages=''
    # $compiler may carry options ("gcc -pthread"): it is split on purpose.
    if ! echo '#include <stdio.h>' | runs $compiler -E -x c -; then
        missing="$missing, a C compiler (${compiler%% *})" packages="$packages gcc libc6-dev"
    fi
    # What belongs to the interpreter is in Debian's packages only where the interpreter is Debian's.
    if [ ! -f "$include/Python.h" ]; then
        missing="$missing, the headers of Python $version (Python.h)" packages="$packages python$version-dev"
        [ "$prefix" = /usr ] || apt=
    fi
    if [ -z "$uv" ] && ! runs "$1" -c 'import venv, ensurepip'; then
        missing="$missing, the venv module of Python $version" packages="$packages python$version-venv"
        [ "$prefix" = /usr ] || apt=
    fi
    if [ "$(uname -s)" = Linux ] && ! runs "$1" -c 'import ctypes; ctypes.CDLL("libgomp.so.1")'; then
        missing="$missing, libgomp.so.1 (GNU OpenMP)" packages="$packages libgomp1"
    fi
    if [ -n "$missing" ] && [ -n "$apt" ]; then
        echo "missing${missing#,}: apt-get install$packages"
    elif [ -n "$missing" ]; then
        echo "missing${missing#,}, for the Python in $prefix: install what is missing with your package manager"
    fi
}

# Commands and files that may be a suitable Python, the newest first. pyenv has what its shims of other versions refuse.
candidates() {
    if [ -n "${DEEPRNN_PYTHON-}" ]; then echo "$DEEPRNN_PYTHON"; return; fi
    for minor in 13 12 11 10 9; do
        if runs python3.$minor --version; then
            echo python3.$minor
        elif runs pyenv --version; then
            installed=$(pyenv versions --bare 2>/dev/null | grep -x "3\.$minor\.[0-9]*" | sed -n '$p')
            [ -z "$installed" ] || PYENV_VERSION=$installed pyenv which python3.$minor 2>/dev/null || :
        fi
    done
    echo python3
}

python='' problem='' passed_over='' listed=''
while IFS= read -r candidate; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case $version in
        3.9 | 3.1[0-3]) ;;
        *) passed_over=" ($candidate is $version)"; continue ;;
    esac
    lack=$(lacks "$candidate")
    if [ -n "$lack" ]; then problem=${problem:-$lack}; continue; fi
    python=${python:-$candidate}
    [ "${1-}" = --list ] || break
    case " $listed " in
        *" $version "*) ;;
        *) "$candidate" -c 'import sys; print(sys.executable)'; listed="$listed $version" ;;
    esac
done <<END
$(candidates)
END

if [ -z "$python" ]; then
    [ -z "$problem" ] || fail "$problem"
    [ -z "${DEEPRNN_PYTHON-}" ] ||
        fail "DEEPRNN_PYTHON=$DEEPRNN_PYTHON is no Python 3.9 to 3.13$passed_over: name another, or unset it"
    [ -n "$uv" ] || fail "no Python 3.9 to 3.13 found$passed_over: install one with your package manager (Debian,\
 Ubuntu: apt-get install python3-venv python3-dev), or install uv, which fetches one by itself"
fi
[ "${1-}" != --list ] || exit 0
# For the native operator, which setup.py builds where it can.
unbuilt=''
if [ "$(uname -s)" = Linux ] && ! runs ${CXX:-g++} --version && { [ -n "${CXX-}" ] || ! runs clang++ --version; }; then
    hint='install one with your package manager'
    ! runs command -v apt-get || hint='apt-get install g++'
    unbuilt=reported
    echo "setup: no C++ compiler (${CXX:-g++}): the layers work, slower, without their native operator: $hint" >&2
fi
[ "${1-}" != --check ] || exit 0

# --- set up

if [ -e .venv ]; then
    [ -e "$stamp" ] || fail ".venv was not made by this script: move it away, or install into it yourself\
 (.venv/bin/pip install -e .)"
    # Where there is a /proc, it tells a set-up at work from one that was killed.
    worker=$(sed -n 's/^at work: //p' "$stamp")
    ! grep -qs setup.sh "/proc/$worker/cmdline" ||
        fail "another set-up is at work (process $worker): wait for it, then call again"
fi
started=$(date +%s)
trap 'rm -rf .venv' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
rm -rf .venv
mkdir .venv
echo "at work: $$" >"$stamp"

if [ -z "$python" ]; then
    echo "no Python 3.9 to 3.13 here$passed_over: uv fetches 3.13"
    uv python install -q 3.13 || fail "uv could not fetch Python 3.13 (above): is the network there?"
    python=$(uv python find 3.13)
    lack=$(lacks "$python")
    [ -z "$lack" ] || fail "$lack"
fi
echo "setting up .venv with $("$python" --version) (once; one to four minutes)"

if [ -n "$uv" ]; then
    uv venv -q --allow-existing --python "$python" .venv || fail "uv could not make .venv (above)"
    install() { uv pip install -q --python .venv/bin/python --compile-bytecode --no-build-isolation "$@"; }
else
    "$python" -m venv .venv || fail "Python could not make .venv (above)"
    install() { .venv/bin/python -m pip install -q --use-pep517 --no-build-isolation "$@"; }
fi
# gluonnlp comes as source. Its build would fetch the newest setuptools and Cython, without a hash; so these two are
# installed first, from the lock, and the build uses them. The lock is complete, so no dependencies are resolved
# (--no-deps): mxnet's own metadata about numpy would make that fail on Python 3.13.
awk '/^[a-z]/ { wanted = /^(cython|setuptools)==/ } wanted' requirements.lock |
    install --no-deps --require-hashes -r /dev/stdin &&
    install --no-deps --require-hashes -r requirements.lock &&
    install --no-deps -e . ||
    fail "the locked dependencies could not be installed (above): is the network there?"
.venv/bin/python -W ignore -c 'import mxnet, gluonnlp' || fail "mxnet or gluonnlp is installed, but does not load (above)"

# Installers do not show the output of setup.py: run it once more to show why there is no library.
[ -e $library ] || [ -n "$unbuilt" ] || .venv/bin/python setup.py -q build_ext --inplace
kernels_fingerprint >"$kernels_stamp"
fingerprint >"$stamp"
trap - EXIT
echo "set up in $(($(date +%s) - started)) s"
