# The verbs of the README. Everything goes into .venv; nothing else on the machine changes.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PORT   ?=
OUT    ?= clip.mp4
PLAN   ?= cube
PROMPT ?= a red rocket rises under a starry night sky

.PHONY: demo video test test-fast lint types train-builtin bench evaluate media clean

demo: $(VENV)/installed
	$(BIN)/python app.py $(if $(PORT),--port $(PORT))

# The prompt goes through the environment, where no shell reads it.
video: export VIDEOAR_PROMPT = $(value PROMPT)
video: $(VENV)/installed
	$(BIN)/python -m videoar generate "$$VIDEOAR_PROMPT" --out "$(OUT)" --plan $(PLAN)

test: $(VENV)/installed-dev
	sh tests/browser_setup.sh $(VENV)
	$(BIN)/python -m pytest

test-fast: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m "not browser" -x

lint: $(VENV)/installed-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/installed-dev
	$(BIN)/mypy

# On a GPU the transformer alone is trained, against the clock (docs/gpu.md); on a CPU everything.
train-builtin: $(VENV)/installed
	@if $(BIN)/python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then \
	  $(BIN)/python -m train sprint --seconds 600 --out runs/sprint && \
	  $(BIN)/python -m train sprint --join runs/sprint --out assets/builtin; \
	else $(BIN)/python -m train all --preset builtin-cpu --out assets/builtin; fi

bench: $(VENV)/installed
	$(BIN)/python -m bench builtin

evaluate: $(VENV)/installed
	$(BIN)/python -m videoar evaluate --quick

media: $(VENV)/installed
	$(BIN)/python -m bench media
	$(BIN)/python -m videoar compare "a red rocket rises under a starry night sky" --plans cube frame full --seed 5 --out assets/media/compare.webp

clean:
	rm -rf $(VENV)

$(VENV)/installed: requirements.txt constraints.txt
	$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v <= (3, 12) else 'VideoAR needs Python 3.10 to 3.12, this is %d.%d; name another: make PYTHON=python3.11 demo' % v)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -c constraints.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt -c constraints.txt
	touch $@
