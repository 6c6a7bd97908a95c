#!/bin/sh
# Renews requirements-cuda.lock: torch for CUDA and what comes with it, beside what `make lock` wrote. Needs uv.
set -eu
cd "$(dirname "$0")/.."
locked=$(sed -n 's/^\([a-z0-9._-]*\)==.*/\1/p' requirements.lock | sort -u)
# shellcheck disable=SC2046,SC2086  # one option a word
uv pip compile pyproject.toml --extra gpu --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
  --quiet --constraint requirements.lock $(printf -- '--no-emit-package %s ' $locked) -o requirements-cuda.lock
