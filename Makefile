# make help    show these lines
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
# make licences  write docs/dependencies.md and docs/sbom.json anew
# make clean   remove what the pipeline made (not the environment)

PYTHON ?= python3
SECONDS ?= 600
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Compiled modules are kept: stages and tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE
DEV := pipeline,search,imagenet,librosa,ray,s3,onnx,hub,towers,mteb,dev
# uv, where there is one, is faster. Both install what constraints.txt pins.
ifneq ($(shell command -v uv),)
install := uv pip install --python $(VENV)/bin/python
else
install := $(VENV)/bin/pip install
endif
install += --constraint constraints.txt --editable

.PHONY: help repro test types tests table real choices bench growth nightly audit fuzz licences clean

repro: $(VENV)/.installed
	dvc repro
	@cat metrics/report/table.md

help:
	@sed -n '/^# make/,/^$$/s/^# \{0,1\}//p' Makefile

test: $(VENV)/.dev
	ruff format --check .
	ruff check .
	@$(MAKE) --no-print-directory --jobs 2 types tests

types: $(VENV)/.dev
	mypy

tests: $(VENV)/.dev
	OMP_NUM_THREADS=1 pytest --numprocesses 3 --dist worksteal

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

nightly: $(VENV)/.dev
	pytest -m nightly

bench: $(VENV)/.dev
	python -m benchmarks.startup
	python -m benchmarks.margin_loss
	python -m benchmarks.training_step
	python -m benchmarks.timm_step
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
	python -m benchmarks.serve_load

growth: $(VENV)/.dev
	python -m benchmarks.growth --clips 1000 10000 100000

audit licences: $(VENV)/.extras

audit:
	pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

licences:
	python tests/dependencies.py

fuzz: $(VENV)/.extras
	python -m tests.fuzz --seconds $(SECONDS)

clean:
	rm -rf data models

# What `make repro` needs; everything else adds to it.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): about 6.4 GB, 4.1 of them for GPUs; two to ten minutes"
	$(PYTHON) -m venv $(VENV)
	$(install) '.[pipeline,search]'
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV): about 2 GB more, a minute to five"
	$(install) '.[$(DEV)]'
	touch $@

$(VENV)/.towers: $(VENV)/.installed
	$(install) '.[pipeline,search,imagenet,towers,minilm]'
	touch $@

$(VENV)/.extras: $(VENV)/.dev
	$(install) '.[$(DEV),minilm,audit,fuzz]'
	touch $@
