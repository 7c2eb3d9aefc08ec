# Each target sets up what it needs. Frostbench itself is the command frostbench; this file only chains its commands.
PYTHON ?= python3
BIN := .venv/bin
RUN := $(BIN)/frostbench
CHECKPOINTS := checkpoints
# Of what comes with the program: spectral features, and one trained upstream of each of the five families.
SHIPPED := fbank mfcc apc hubert wav2vec2 byol vicreg
OTHERS := mockingjay cpc simclr tera vq_apc npc vae best_rq segment_gap wav2vec vq_wav2vec moco inva_spread inst_disc cmc simsiam dino \
	data2vec barlow_twins
TRAINED := $(filter-out fbank mfcc,$(SHIPPED)) $(OTHERS)
CHECKPOINT_OF = $(1)@$(CHECKPOINTS)/$(1)-tiny$(if $(filter hubert wav2vec2,$(1)),,.safetensors)
# One of each network; the others begin as one of these, such as all that learn from whole recordings as simclr.
UNTRAINED := $(addsuffix @untrained,apc mockingjay npc vae hubert best_rq cpc wav2vec vq_wav2vec wav2vec2 simclr cmc distil)
UPSTREAMS = $(foreach name,$(1),--upstream $(name))

.PHONY: benchmark pretrain benchmark-all test check format docs clean s3prl-env

benchmark: .venv/installed  ## evaluate what comes with the program on four tasks, print the leaderboard and write its page
	$(RUN) run --corpus mini $(call UPSTREAMS,$(SHIPPED)) --task ks --task sid --task ic --task asr --seed 0 \
		--quick-seed 1 --quick-seed 2
	$(RUN) report --html results/leaderboard.html

pretrain: .venv/installed  ## train every method on mini; upstreams/_shipped/build.py makes what ships of it
	$(RUN) pretrain $(TRAINED) --corpus mini --size tiny --output $(CHECKPOINTS)
	$(RUN) pretrain distil --set teacher=hubert@$(CHECKPOINTS)/hubert-tiny --corpus mini --size tiny --output $(CHECKPOINTS)

benchmark-all: pretrain  ## evaluate every method beside its untrained network, and write docs/methods.md
	$(RUN) run --corpus mini --upstream fbank --upstream mfcc $(foreach name,$(TRAINED) distil,--upstream $(call CHECKPOINT_OF,$(name))) \
		$(call UPSTREAMS,$(UNTRAINED)) --task ks --task sid --task ic --task asr --seed 0 --quick-seed 1 --quick-seed 2 \
		--output results-all
	$(BIN)/python -m docs.methods $(CHECKPOINTS) results-all

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
