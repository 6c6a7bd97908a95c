# make demo   installs what is needed into .venv and sharpens the scene in examples/
# make test   installs what is needed into .venv and runs every check
# make faults does all the damage of the fault and input tests, in about half an hour, and reports it
# make mutants   breaks the pure modules in thousands of ways, one at a time, and tells which the tests missed; hours
# make coverage   runs the tests and tells which lines and branches of the package none of them reaches
# make docs   builds the documentation, build/site/index.html
# make lock   renews requirements.lock (needs uv)
# make image-replay   builds the container image where there is no engine, and checks it (scripts/replay-image.sh)
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test faults mutants coverage lint docs lock image-replay clean

demo: $(VENV)/.installed
	mkdir -p demo-output
	$(BIN)/pansharpen run examples/l8_madrid/pan.tif examples/l8_madrid/ms.tif \
	  -o demo-output/madrid.tif --quicklook demo-output/madrid.png --overwrite

test: lint $(VENV)/.triton
	$(BIN)/python -m pytest

faults: $(VENV)/.installed
	PANSHARPEN_SLOW=1 $(BIN)/python -m pytest -m faults tests/test_faults.py tests/test_security.py

coverage: $(VENV)/.installed
	$(PIP) --no-build-isolation -e '.[coverage]'
	# not the faults, which damage what coverage writes, nor what measures the time that it takes
	$(BIN)/coverage run -m pytest -m 'not faults' --deselect tests/test_cli.py::test_help_is_quick
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered --fail-under=92

# goes on where it was stopped; MUTANTS='pansharpen_cli.imaging.geogrid*' tries these only, again
mutants: $(VENV)/.installed
	$(PIP) --no-build-isolation -e '.[mutants]'
	OMP_NUM_THREADS=1 $(BIN)/mutmut run $(MUTANTS)
	$(BIN)/mutmut results | sed '/not checked/d'
	$(BIN)/mutmut export-cicd-stats
	cat mutants/mutmut-cicd-stats.json

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed
	$(BIN)/python -m mkdocs build --strict

# torch comes first and without a hash: its wheel differs between CPU and CUDA machines
$(VENV)/.installed: pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(PIP) 'torch>=2.10,<2.14'
	$(PIP) --require-hashes --no-deps -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

# kernels for a GPU are tried in its interpreter; torch for CUDA brings it, torch for the CPU does not
$(VENV)/.triton: $(VENV)/.installed requirements-cuda.lock
	sed -n '/^triton==/,/[^\\]$$/p' requirements-cuda.lock > $@.txt
	$(PIP) --require-hashes --no-deps -r $@.txt
	touch $@

lock:
	echo hatchling editables | tr ' ' '\n' | uv pip compile pyproject.toml - --extra test --universal \
	  --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet -o requirements.lock \
	  $$(for p in torch triton cuda-bindings cuda-pathfinder cuda-toolkit; do echo "--no-emit-package $$p"; done) \
	  $$(for p in cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand cusolver cusparse \
	    cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx; do echo "--no-emit-package nvidia-$$p"; done)

image-replay:
	scripts/replay-image.sh

clean:
	rm -rf $(VENV) demo-output mutants
