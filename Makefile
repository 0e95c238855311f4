# `make demo` shows it, `make check` is for every change, `make test` is everything.

PYTHON ?= python3
# Only as an argument: some environments have a HOST of their own.
HOST := $(if $(filter command,$(origin HOST)),$(HOST),127.0.0.1)
PORT ?= 5000
WORKERS ?= 1
REDIS ?=
VENV := .venv
PY := $(VENV)/bin/python
PACKAGING := setup.cfg pyproject.toml setup.py $(wildcard flask_wschat/*/*.c)
LINTED := $(wildcard flask_wschat demos tests benchmarks tools docs example_app.py setup.py)

# Many tests wait, for a server or a clock: so more at a time than there are processors.
JOBS ?= 6
ALL := tests -q -rfEs -p tests.support.parallel --jobs $(JOBS)
# Tests start hundreds of Pythons, each of which would compile the same again.
test check check-long: export PYTHONDONTWRITEBYTECODE :=
test check check-long: export PYTHONPYCACHEPREFIX := $(CURDIR)/build/pycache
.PHONY: help demo test check check-long check-oldest check-next lint compiled node cov bench soak fuzz asan \
	asan-quick audit autobahn screenshots clean

help:
	@echo "make demo      install into .venv and serve the demos (PORT=$(PORT))"
	@echo "               HOST=0.0.0.0: also for phones and others in this network"
	@echo "               WORKERS=4: by gunicorn; REDIS=1: sharing a redis-server"
	@echo "               DEMO_PLUG=1: \"Pull the plug\" for others, too; DEMO_PLUG=0: for nobody"
	@echo "make check     format, lint, types and the quick tests"
	@echo "make check-long    the quick tests the long way, with shortcuts switched off"
	@echo "make check-oldest  tests of what meets Flask, with the oldest versions that we support"
	@echo "make check-next    the same with the newest, pre-releases too, and simulated next ones"
	@echo "make test      everything, with Chromium, Redis and nginx"
	@echo "make cov       tests with branch coverage"
	@echo "make bench     speed, scale and latency beside eleven others, in a quarter of an hour"
	@echo "make soak      a server under load and faults at once: does it stay small? 17 minutes"
	@echo "               (SECONDS=60, SERVER=gunicorn, BACKEND=sqlite or redis)"
	@echo "make fuzz      codec, handshakes, HTTP and requests, against foreign ones: half an hour"
	@echo "make asan      the C code's tests under sanitizers, in a few minutes (needs gcc)"
	@echo "make audit     bandit on the package, pip-audit on what it needs"
	@echo "make autobahn  the protocol conformance suite, when wstest is installed"
	@echo "make screenshots   the pictures of the README, anew"
	@echo "make clean     remove what the other targets made, except .venv"

# The port comes first: nobody should wait for an install to learn that it is taken.
demo: export HOST := $(HOST)
demo: export PORT := $(PORT)
demo: export WORKERS := $(WORKERS)
demo: export REDIS := $(REDIS)
demo:
	@sh tools/venv.sh python "$(PYTHON)"
	@$(PYTHON) -m tools.demo check
	@$(MAKE) -s --no-print-directory $(VENV)/$(if $(filter 1,$(WORKERS)$(REDIS)$(WSCHAT_URL)),.demo,.workers)
	@echo "==> Starting the demos"
	@exec $(PY) -m tools.demo

# What comes before the tests takes one processor each.
test: $(VENV)/.dev
	@sh tools/system.sh
	@$(MAKE) --no-print-directory -j3 lint compiled node
	@echo "==> Tests"
	@$(PY) -m pytest $(ALL) --cache-clear || $(PY) -m tools.again $$?

check: $(VENV)/.dev
	@$(MAKE) --no-print-directory -j2 lint compiled
	@echo "==> Quick tests"
	@$(PY) -m pytest $(ALL) -m "not slow and not browser"

lint: $(VENV)/.dev
	@echo "==> Format, lint, types"
	@$(PY) -m ruff format --check $(LINTED) || \
		{ echo "Run: $(PY) -m ruff format $(LINTED)"; exit 1; }
	@$(PY) -m ruff check --quiet $(LINTED)
	@$(PY) -m mypy $(LINTED)

# The first time one Python compiles the tests, which takes 8 s, not each of JOBS.
compiled: $(VENV)/.dev
	@test -d build/pycache$(CURDIR)/tests || \
		$(PY) -m pytest tests -q --collect-only >/dev/null || true

node:
	@sh tools/node.sh

check-long: $(VENV)/.dev
	@echo "==> Quick tests without shortcuts"
	@export WSCHAT_SHORTCUTS=0; $(PY) -m pytest $(ALL) --cache-clear \
		-m "not slow and not browser" || $(PY) -m tools.again $$?

# What meets Flask and its like. Other versions may have no short ways; answers stay.
TESTS ?= $(wildcard tests/next tests/shortcuts tests/test_extension.py \
	tests/test_script.py tests/test_websocket.py tests/test_testing.py tests/test_mistakes.py)
VERSIONED := -m pytest -q -p no:cacheprovider --timeout=60 -m "not slow and not browser and not shortcut"

# The oldest have no wheels for new Pythons.
OLDEST_PYTHON ?= $(shell python3.10 -c "" 2>/dev/null && echo python3.10 || echo $(PYTHON))
check-oldest: .venv-oldest/.test
	@echo "==> Tests with the oldest versions"
	@.venv-oldest/bin/python $(VERSIONED) $(TESTS)
	@.venv-oldest/bin/python $(VERSIONED) tests/next -m slow

check-next:
	@sh tools/venv.sh install "$(PYTHON)" .venv-next ".[test]" \
		--upgrade --upgrade-strategy eager --pre $(NEXT)
	@echo "==> Tests with the newest versions"
	@.venv-next/bin/python $(VERSIONED) $(TESTS)
	@.venv-next/bin/python $(VERSIONED) tests/next -m slow
	@echo "==> Tests with the simulated next Flask and Werkzeug"
	@.venv-next/bin/python $(VERSIONED) -p tests.next.plugin $(filter-out tests/next,$(TESTS))

cov: $(VENV)/.dev
	@echo "==> Coverage of the codec by its own tests"
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest tests/codec -q
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report --include="flask_wschat/codec/*" --fail-under=100
	@echo "==> Coverage of everything"
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest tests -q
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report

bench: $(VENV)/.dev
	@echo "==> Benchmarks (twenty minutes; needs two idle cores and a C compiler)"
	@status=0; for part in benchmarks benchmarks.scale benchmarks.latency \
		benchmarks.stalled benchmarks.backends benchmarks.rooms; do \
		$(PY) -m $$part || status=1; done; exit $$status

SECONDS ?= 900
SERVER ?= run
BACKEND ?= $(if $(filter gunicorn,$(SERVER)),sqlite,memory)
soak: $(VENV)/.dev
	@echo "==> A soak of $(SECONDS) s: $(SERVER) on $(BACKEND)"
	@mkdir -p build
	@$(PY) -m benchmarks.soak --seconds $(SECONDS) --server $(SERVER) --backend $(BACKEND) \
		--picture build/soak.svg

fuzz: $(VENV)/.dev
	@echo "==> 5000 examples each: codec, handshakes, HTTP, requests (half an hour)"
	@$(PY) -m pytest tests/codec tests/fuzz tests/test_heads.py -q -m "not slow" \
		--hypothesis-profile=fuzz --timeout=0
	@echo "==> The chat beside a model of it, 500 examples on each backend (10 minutes)"
	@$(PY) -m pytest tests/chat/test_model.py -q --hypothesis-profile=fuzz --timeout=0

# A copy of what the tests need, with the C code built anew; Python itself is not, so what
# it leaks and how it allocates is none of our business. Warnings are errors here.
SANITIZED := build/asan
# libstdc++ is named as greenlet throws: the sanitizer looks for that before it is loaded.
# What they find goes to files, for pytest keeps what is said while a test runs.
SANITIZERS = LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libstdc++.so.6)" \
	PYTHONPATH=. PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:log_path=report \
	UBSAN_OPTIONS=log_path=report
ASAN_TESTS ?= tests/codec tests/transports tests/fuzz/test_deflate.py tests/fuzz/test_tiny.py
# A minute of it, for each change: the twins side by side, and all of the app.
asan-quick: ASAN_TESTS = tests/codec/test_accelerated.py tests/transports/test_accelerated.py \
	tests/transports/test_counts.py tests/fuzz/test_deflate.py tests/fuzz/test_tiny.py
asan asan-quick: $(VENV)/.dev
	@echo "==> The C code under the address and undefined behaviour sanitizers"
	@rm -rf $(SANITIZED) && mkdir -p $(SANITIZED)
	@cp -r flask_wschat tests docs benchmarks demos tools *.py *.cfg *.toml *.md $(SANITIZED)
	@rm -f $(SANITIZED)/flask_wschat/*/*.so
	@cd $(SANITIZED) && \
		CFLAGS="-g -fno-omit-frame-pointer -Werror -fsanitize=address,undefined -fno-sanitize-recover" \
		LDFLAGS="-fsanitize=address,undefined" \
		$(abspath $(PY)) setup.py -q build_ext --inplace && \
		ls flask_wschat/codec/_speedups*.so flask_wschat/transports/_speedups*.so >/dev/null
	@cd $(SANITIZED) && $(SANITIZERS) $(abspath $(PY)) -m pytest $(ASAN_TESTS) -q \
		--hypothesis-profile=dev --timeout=120 -m "not slow" \
		-k "not python and not Python and not handshake and not anatomy and not docs" || \
		{ cat report.* 2>/dev/null; exit 1; }

# In an environment of its own: what it needs is as much again as all of ours.
audit: .venv-audit/.audit
	@echo "==> Known faults, in our code and in what it stands on"
	@.venv-audit/bin/python -m tools.audit

autobahn: $(VENV)/.dev
	@$(PY) -m tools.autobahn

screenshots: $(VENV)/.dev
	@$(PY) -m pip install --quiet --disable-pip-version-check "pillow>=10"
	@$(PY) -m tools.screenshots

clean:
	rm -rf build dist htmlcov *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f .coverage .coverage.*
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

# Stamps: newer than the packaging files means that nothing is to be installed.
$(VENV)/.demo: $(PACKAGING)
	@sh tools/venv.sh install "$(PYTHON)" $(VENV) ".[demo]"
	@touch $@

$(VENV)/.workers: $(PACKAGING)
	@sh tools/venv.sh install "$(PYTHON)" $(VENV) ".[demo,redis]" "gunicorn[gevent]>=23.0"
	@touch $@ $(VENV)/.demo

.venv-oldest/.test: $(PACKAGING) tools/oldest.txt
	@sh tools/venv.sh install "$(OLDEST_PYTHON)" .venv-oldest ".[test]" \
		--constraint tools/oldest.txt
	@touch $@

.venv-audit/.audit: $(PACKAGING)
	@sh tools/venv.sh install "$(PYTHON)" .venv-audit ".[redis,audit]"
	@touch $@

# CI fails for what we have changed, not for what somebody has released since.
TESTED := $(if $(filter true,$(CI)),$(shell $(PYTHON) -c "import sys; \
	print('--constraint tools/tested.txt' if sys.version_info[:2] == (3, 11) else '')"))
$(VENV)/.dev: $(PACKAGING) tools/tested.txt
	@sh tools/venv.sh install "$(PYTHON)" $(VENV) ".[dev]" $(TESTED)
	@touch $@ $(VENV)/.demo $(VENV)/.workers
