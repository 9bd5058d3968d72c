# Two commands: `make train` and `make test`. Each sets up .venv first where that has not been done, with the newest Python
# here that works; DEEPRNN_PYTHON names another.

.PHONY: setup train test lint check wheel lock clean help

setup: ## set up .venv: find a Python, install the locked dependencies and this package (make alone does this)
	@scripts/setup.sh

train: ARGS = --layers 2
train: setup ## train a language model; options of `deeprnn train` go in ARGS="--layers 4"
	@.venv/bin/python scripts/train.py $(ARGS)

# One thread each: two test processes share the cores better than their threads would.
test: setup ## run the tests; options of pytest go in ARGS
	@OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n 2 $(ARGS)

lint: setup ## ruff, mypy, the rules on what may import what, and the format of the C++
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m mypy
	@.venv/bin/lint-imports
	@.venv/bin/clang-format --dry-run --Werror src/deeprnn/nn/kernels/*.* tests/nn/kernels/*.cc

check: lint test ## lint and test

# Into dist: this package with its native operator, and gluonnlp, which is published as source alone. With these two,
# `pip install dist/*.whl` needs no compiler.
wheel: setup ## into dist: wheels of this package and of gluonnlp, for a machine without a compiler
	@scripts/wheel.sh

# The versions and hashes of everything, for all Pythons and platforms; `make lock ARGS=--upgrade` takes newer ones.
lock: ## write requirements.lock anew (needs uv); ARGS=--upgrade takes newer versions
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	@uv pip compile -q --config-file uv.toml --universal --python-version 3.9 --generate-hashes --no-strip-extras \
	    --extra test --extra dev --extra tensorboard --custom-compile-command "make lock" \
	    $(ARGS) -o requirements.lock setup.cfg

clean: ## delete .venv, caches and builds
	@rm -rf .venv .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis build dist src/*.egg-info src/deeprnn_torch/build src/deeprnn_torch/*.egg-info src/deeprnn/nn/*.so
	@find src scripts tools tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A target's line is the text after its two number signs.
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
	    printf '%-8s %s\n' "$$target" "$$text"; done
