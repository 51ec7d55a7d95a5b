# `make` alone lists the targets.  Works with GNU make and BSD make.
.POSIX:

PY = .venv/bin/python
FASTPATH != find wa/_fastpath sim/_native bench/_load -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.h'
PACKAGE != find wa -name '*.py' -o -name '*.pyi'
TYPED != find wa scripts examples bench sim faults -name '*.py' 2>/dev/null | cut -d/ -f1 | sort -u

help:
	@echo 'make demo      set up, then watch two phones talk through a server that is killed and restarted'
	@echo 'make test      set up, then run the whole test suite'
	@echo
	@echo 'make setup     only set up: system libraries, .venv, both builds of the fast path'
	@echo 'make run       a server on 127.0.0.1:7340, data in ./wa-data          (ARGS="--workers 4")'
	@echo 'make check     lint, types, house rules on sizes, names and documents'
	@echo 'make sim       the real delivery code under simulated faults          (SEED=1 RUNS=1000 JOBS=2)'
	@echo 'make faults    real processes: kill -9, full disk, cut connections    (ROUNDS=100 SEED=1)'
	@echo 'make controls  negative controls: sim and faults must notice each broken promise'
	@echo 'make bench     the short benchmarks, in under five minutes            (ARGS=--strict: fail on a missed target)'
	@echo 'make fuzz      the property tests with many more examples             (EXAMPLES=20000 SEED=1)'
	@echo 'make clean     remove what was built; ./wa-data stays'

# --- set-up: a stamp is made anew when what it depends on changed, and lies beside what it vouches for

build/system.stamp: scripts/setup.sh
	@scripts/setup.sh system
	@touch $@

.venv/run.stamp: build/system.stamp pyproject.toml
	@scripts/setup.sh venv
	@touch $@

.venv/test.stamp: .venv/run.stamp
	@scripts/setup.sh test-deps
	@touch $@

build/debug.stamp: .venv/run.stamp setup.py $(FASTPATH)
	@scripts/setup.sh debug
	@touch $@

.venv/release.stamp: .venv/run.stamp setup.py $(FASTPATH) $(PACKAGE)
	@scripts/setup.sh release
	@touch $@

setup: .venv/test.stamp build/debug.stamp .venv/release.stamp

# --- use --------------------------------------------------------------------------------------------

run: .venv/release.stamp
	.venv/bin/wa serve $(ARGS)

demo: .venv/release.stamp
	@$(PY) scripts/demo.py

# --- prove ------------------------------------------------------------------------------------------

test: .venv/test.stamp build/debug.stamp
	$(PY) -m pytest $(ARGS)

check: .venv/test.stamp build/debug.stamp
	$(PY) -m ruff check .
	$(PY) -m mypy --strict $(TYPED)
	$(PY) -m pytest -q tests/unit/test_tidy.py tests/unit/test_imports.py tests/unit/test_documents.py \
	    tests/unit/test_protocol_doc.py

EXAMPLES = 2000
fuzz: .venv/test.stamp build/debug.stamp
	WA_FUZZ_EXAMPLES=$(EXAMPLES) $(PY) -m pytest -m hypothesis -v --timeout=3600 --hypothesis-show-statistics \
	    $(SEED:%=--hypothesis-seed=%) $(ARGS)

SEED =
RUNS = 1000
JOBS = 2
sim: .venv/test.stamp build/debug.stamp
	$(PY) -m sim run $(SEED:%=--seed %) --runs $(RUNS) --jobs $(JOBS)

controls: .venv/test.stamp build/debug.stamp
	$(PY) -m sim controls
	$(PY) -m faults control

ROUNDS = 100
faults: .venv/test.stamp build/debug.stamp
	$(PY) -m faults kills --rounds $(ROUNDS) $(SEED:%=--seed %)
	$(PY) -m faults all

bench: .venv/test.stamp
	$(PY) -m bench short $(ARGS)

clean:
	rm -rf .venv build dist wa.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find wa/_fastpath sim/_native bench/_load -name '*.so' -delete
	find .  -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help setup run demo test check fuzz sim controls faults bench clean
