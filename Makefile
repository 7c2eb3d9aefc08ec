# Each target sets up what it needs. Frostbench itself is the command frostbench; this file only chains its commands.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/frostbench
CHECKPOINTS := checkpoints
UPSTREAMS := fbank mfcc apc@$(CHECKPOINTS)/apc-tiny.safetensors mockingjay@$(CHECKPOINTS)/mockingjay-tiny.safetensors \
	wav2vec2@$(CHECKPOINTS)/wav2vec2-tiny hubert@$(CHECKPOINTS)/hubert-tiny
RUN_ON_MINI = $(RUN) run --corpus mini $(UPSTREAMS:%=--upstream %)

.PHONY: benchmark test check format docs clean s3prl-env

benchmark: .venv/installed  ## pretrain four upstreams, evaluate six on four tasks, print the leaderboard and write its page
	$(RUN) pretrain hubert wav2vec2 mockingjay apc --corpus mini --size tiny --output $(CHECKPOINTS)
	$(RUN_ON_MINI) --task ks --task sid --task ic --task asr --seed 0
	$(RUN_ON_MINI) --task ks --task sid --task ic --seed 1 --seed 2
	$(RUN) report --html results/leaderboard.html

test: .venv/installed  ## the whole test suite
	$(BIN)/python -m pytest -n 2

check: .venv/installed  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed  ## rewrite in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/installed  ## write the documents that follow from the program anew
	$(BIN)/python -m docs.generate

s3prl-env: benchmarks/.s3prl-env/installed  ## the peer that benchmarks/vs_s3prl.py measures against; about 7 GB

benchmarks/.s3prl-env/installed: benchmarks/s3prl_env.txt
	$(PYTHON) -m venv benchmarks/.s3prl-env
	benchmarks/.s3prl-env/bin/python -m pip install --quiet --requirement benchmarks/s3prl_env.txt
	touch $@

clean:  ## forget checkpoints, features and results
	rm -rf $(CHECKPOINTS) cache results

# Written last, so that an interrupted installation is done again.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Frostbench needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch torchaudio
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev]'
	touch $@
