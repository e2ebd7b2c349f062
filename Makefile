# make train: installs what is missing, then runs the main job.      make test: the same for the tests.
# ARGS are passed on, for example: make train ARGS="env=corridor memory=gru"
PYTHON ?= python3
BIN := .venv/bin
ARGS ?=

.PHONY: train test check system browser clean

train: .venv/installed system
	$(BIN)/python train.py env=delayed_evidence $(ARGS)

test: .venv/installed-test system browser check
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The lock file was made with Python 3.11; other versions resolve within the bounds of pyproject.toml.
.venv/bin/pip:
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v < (3, 14) else f"Python 3.10 to 3.13 is needed, $(PYTHON) is {v[0]}.{v[1]}; set PYTHON=")'
	$(PYTHON) -m venv .venv

.venv/constraints.txt: .venv/bin/pip constraints.txt
	if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then cp constraints.txt $@; else : > $@; fi

.venv/installed: pyproject.toml .venv/constraints.txt
	$(BIN)/pip install -q -c .venv/constraints.txt -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/pip install -q -c .venv/constraints.txt -e '.[test]' setuptools wheel
	$(BIN)/pip install -q -c .venv/constraints.txt --no-build-isolation iisignature
	touch $@

# Offscreen OpenGL for the cameras, and a browser for the test of the viewer.
system:
	@$(BIN)/python -c 'import ctypes; ctypes.CDLL("libEGL.so.1")' 2>/dev/null || $(call apt,libegl1 libgl1-mesa-dri)

browser:
	@command -v chromium >/dev/null || $(call apt,chromium)

define apt
if command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then apt-get update -qq && apt-get install -y -qq $(1) >/dev/null; \
else echo "error: system packages are missing: $(1); install them (Debian, Ubuntu: sudo apt-get install $(1))" >&2; exit 1; fi
endef

clean:
	rm -rf .venv build *.egg-info
