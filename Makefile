PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.PHONY: run first-contact test test-rest test-all test-versions soak format docs pictures bench bench-model results clean

# Bytecode is kept, whatever the environment says: hundreds of processes of the tests import the same modules.
unexport PYTHONDONTWRITEBYTECODE

# From the plain seed alone, which leaves more of the minutes to the search.
# It ends by attempts alone, so that a slow machine takes longer and shows as much.
SEARCH := $(BIN)/avo run --problem mha --target h100 --seed-kernel plain --operator mutate --max-attempts 5

run: $(READY)  ## Evolve mha for h100 without GPU or key: five attempts, in five to ten minutes on two cores.
	$(SEARCH)

first-contact: $(READY)  ## Ten minutes on a borrowed GPU: evidence in the order of its value, in one archive.
	$(BIN)/python -m bench.first_contact

# Two test processes on two cores: more threads would only get in each other's way.
test test-rest soak: export OMP_NUM_THREADS = 1
MEASURED := $(BIN)/python -m tests.processor_time
PYTEST := pytest --numprocesses 2 --dist worksteal --durations 15

test: $(READY)  ## What must hold at every step: style, types, import rules, quick tests of each part. At most 540 s of CPU.
	$(MEASURED) "ruff check ." "ruff format --check ." mypy "lint-imports --no-cache" "$(PYTEST)"

test-rest: $(READY)  ## The other tests that need no GPU, except the soak's: corpora, PostgreSQL, browser, long ones.
	$(MEASURED) "$(PYTEST) -m '(corpus or postgresql or browser or long) and not gpu and not soak'"

test-all: test test-rest

test-versions: $(READY)  ## The evaluator on Triton 3.6, and on Python 3.13 what needs no torch.
	.ci/test-versions

soak: $(READY)  ## The long tests, those too dear for CI, and property tests with seeds of chance, which they print.
	AVO_SOAK_SEED=$${AVO_SOAK_SEED:-$$(date +%s)} \
	    $(MEASURED) "$(PYTEST) -m '(long or soak or hypothesis) and not gpu' --timeout 7200 --hypothesis-profile search"

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)  ## The documentation as a site, in build/site; fails where a link leads nowhere.
	$(BIN)/python -m docs.site

PICTURED := build/pictures.db

pictures: $(READY)  ## The pictures of the pages anew, from a run like that of make run.
	rm -f $(PICTURED)*
	$(SEARCH) --db $(PICTURED)
	$(BIN)/python -m docs.pictures --db $(PICTURED)
	$(BIN)/python -m docs.architecture

bench: $(READY)  ## The figures of docs/benchmarks.md and docs/performance-model.md.
	$(BIN)/python -m bench.executor
	$(BIN)/python -m bench.children
	$(BIN)/python -m bench.evaluate
	$(BIN)/python -m bench.model

bench-model: $(READY)  ## The tables of docs/performance-model.md anew: minutes of compiling and playing.
	$(BIN)/python -m bench.model --write
	$(BIN)/python -m bench.gluon --write

results: $(READY)  ## docs/results.md anew: six hours of searching, which go on where they were stopped.
	$(BIN)/python -m bench.results --minutes 15 --out docs/results.md

# setuptools warns at length of every editable installation.
$(READY): pyproject.toml constraints.txt
	@echo 'Installing into $(VENV), which takes a minute, or several where torch has to be downloaded.'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .versions build *.egg-info
