#!/bin/sh
# Builds the wheels that `pip install dist/*.whl` needs on a machine without a compiler: this package's with its native
# operator, and that of gluonnlp as locked, which is published as source only. Called by `make wheel`.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")/.."
unset PYTHONHOME PYTHONPATH
export PIP_DISABLE_PIP_VERSION_CHECK=1
python=$PWD/.venv/bin/python

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' HUP TERM
# uv makes a .venv without pip.
if ! "$python" -m pip --version >/dev/null 2>&1; then
    uv pip install -q --python "$python" --target "$scratch/pip" pip
    export PYTHONPATH="$scratch/pip"
fi
# All wheels of before: of an older version, or of a time without a compiler.
mkdir -p dist
rm -f dist/deeprnn-*.whl dist/gluonnlp-*.whl
awk '/^[a-z]/ { wanted = /^gluonnlp==/ } wanted' requirements.lock >"$scratch/gluonnlp.txt"
"$python" -m pip wheel -q --use-pep517 --no-build-isolation --no-deps -w dist --require-hashes -r "$scratch/gluonnlp.txt"
"$python" -m pip wheel -q --use-pep517 --no-build-isolation --no-deps -w dist .
case $(echo dist/deeprnn-*.whl) in
    *-any.whl)
        echo "wheel: built without the native operator: .venv/bin/python setup.py build_ext --inplace says why" >&2
        exit 1 ;;
esac
ls dist/deeprnn-*.whl dist/gluonnlp-*.whl
