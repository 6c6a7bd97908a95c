# make demo   installs what is needed into .venv and sharpens the scene in examples/
# make test   installs what is needed into .venv and runs every check
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/.installed
	$(BIN)/pansharpen run examples/l8_madrid/pan.tif examples/l8_madrid/ms.tif \
	  -o demo-output/madrid.tif --quicklook demo-output/madrid.png --overwrite

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) demo-output
