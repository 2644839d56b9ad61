# Every target makes the virtual environment it needs. Another interpreter: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-gpu lint bench bench-tabletop bench-convert bench-stream bench-data bench-motion bench-train latency-gpu train-tabletop tabletop-results simulator-proof

help:
	@echo "make setup      install the package with its dev extras into $(VENV)"
	@echo "make demo       one instruction on a drawn tabletop -> outputs/demo.png"
	@echo "make test       the fast tests; also test-slow, test-gpu"
	@echo "make train-tabletop  the tabletop's small model from nothing: data and three stages, resumable -> outputs/tabletop"
	@echo "make tabletop-results  every comparison of the paper on the tabletop, resumable -> outputs/tabletop/results"
	@echo "make simulator-proof  runner and server against bare loops in every installed simulator -> outputs/simulator_proof"
	@echo "make lint       ruff check and ruff format --check"
	@echo "make bench      times of every stage, with and without each reuse, compiled too (10 min); the tabletop's steps/s and episodes/min"
	@echo "make bench-tabletop  environment steps/s, policy ms per step, episodes/min with 1 and 2 processes"
	@echo "make bench-convert   time and memory of converting a checkpoint of full size (12 GB of disk)"
	@echo "make bench-stream    memory and speed of streaming 2,000 episodes twice (2 GB of disk) -> outputs/stream_memory.png"
	@echo "make bench-motion    language motions per second of one core"
	@echo "make bench-data      samples/s of each reader up to both towers' inputs, beside plain PIL and NumPy"
	@echo "make latency-gpu     Table 14, stages and throughput of the released size, compiled, random weights -> docs/benchmarks"
	@echo "make bench-train     samples/s of both training stages, and their share of the machine's matmul peak"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "$(PYTHON) is not Python 3.11 or newer: $$($(PYTHON) --version 2>&1). Give one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install -e ".[dev]"
	@touch $@

# The nano model is as fast on one thread, and two threads wait for each other when the machine is busy.
demo test test-slow bench-tabletop bench-data bench-motion: export OMP_NUM_THREADS ?= 1

demo: $(INSTALLED)
	$(RUN) instructvla.evaluation.one_picture --output outputs/demo.png

test: $(INSTALLED)
	$(RUN) pytest -m "not slow and not gpu"

test-slow: $(INSTALLED)
	$(RUN) pytest -m "slow and not gpu"

test-gpu: $(INSTALLED)
	$(RUN) pytest -m gpu

train-tabletop: $(INSTALLED)
	$(RUN) instructvla.training.train_tabletop

tabletop-results: $(INSTALLED)
	$(RUN) instructvla.evaluation.tabletop.results

simulator-proof: $(INSTALLED)
	$(RUN) instructvla.evaluation.simulators.proof

lint: $(INSTALLED)
	$(RUN) ruff check .
	$(RUN) ruff format --check .

bench: $(INSTALLED)
	$(RUN) instructvla.evaluation.bench --size nano --compile --repeats 15
	$(RUN) instructvla.evaluation.bench --size mid --compile --repeats 5
	$(RUN) instructvla.evaluation.tabletop.bench_world
	$(RUN) instructvla.evaluation.tabletop.bench_policy

bench-tabletop: $(INSTALLED)
	$(RUN) instructvla.evaluation.tabletop.bench_world
	$(RUN) instructvla.evaluation.tabletop.bench_policy

bench-convert: $(INSTALLED)
	$(RUN) tests.bench_convert

bench-stream: $(INSTALLED)
	$(RUN) tests.bench_stream_memory

bench-motion: $(INSTALLED)
	$(RUN) tests.bench_motion

bench-train: $(INSTALLED)
	$(RUN) instructvla.training.bench_training

latency-gpu: $(INSTALLED)
	@mkdir -p docs/benchmarks
	$(RUN) instructvla.evaluation.latency 2b --device cuda --compile --batches 1,2,4,8,16,32,64 --output docs/benchmarks/latency_2b.json --plot docs/benchmarks/latency_2b.png

bench-data: $(INSTALLED)
	$(RUN) tests.bench_readers
