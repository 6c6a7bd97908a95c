#!/bin/sh
# In the Dockerfile: what a run needs of /wheels goes to /opt/pansharpen, without pip, tests and headers.
set -eu
export PIP_CONFIG_FILE=/dev/null # which might name other places to take packages from
python -m venv --without-pip /opt/pansharpen
pip --python /opt/pansharpen/bin/python install --no-index --find-links /wheels pansharpen-cli
pip --python /opt/pansharpen/bin/python check

packages=$(/opt/pansharpen/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
find "$packages" -type d -name tests -prune -exec rm -rf {} +
cd "$packages/torch"
# torch does not start without its shm_manager
find bin -type f ! -name torch_shm_manager -delete
rm -rf test include share
