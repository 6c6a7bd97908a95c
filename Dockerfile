# docker build -t pansharpen .                          runs on the CPU
# docker build -t pansharpen:cuda --target cuda .       runs on an NVIDIA GPU, with the driver of the host
# docker run --rm --read-only --tmpfs /tmp -v "$PWD:/data" pansharpen run pan.tif ms.tif -o out.tif
#
# docs/containers.md tells the rest: pinning by digest, other indexes, bill of materials.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# What is installed comes from /wheels alone, and what lies there was checked against its hash.
FROM ${PYTHON_IMAGE} AS locked
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock requirements-cuda.lock ./
RUN pip download --require-hashes --no-deps --only-binary :all: --dest /wheels -r requirements.lock

FROM locked AS project
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY pansharpen_cli pansharpen_cli
COPY models models
RUN PIP_CONFIG_FILE=/dev/null pip wheel --no-index --find-links /wheels --no-deps --wheel-dir /project .

# TORCH_INDEX: where torch without CUDA is found; empty means pip's own configuration. Its wheels have other hashes than
# those in requirements-cuda.lock; TORCH_SHA256 is that of the one for this architecture.
FROM locked AS build-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH_SHA256=
RUN torch=$(grep -o '^torch==[0-9.]*' requirements-cuda.lock) && \
    echo "$torch ${TORCH_SHA256:+--hash=sha256:$TORCH_SHA256}" > torch.txt && \
    pip download --no-deps --only-binary :all: ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --dest /wheels -r torch.txt
COPY --from=project /project /wheels
COPY scripts/image-install.sh ./
# onnxruntime looks for the libraries of a GPU when it is asked for one, and says that there are none
RUN sh image-install.sh && \
    rm -f /opt/pansharpen/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime_providers_cuda.so \
          /opt/pansharpen/lib/python3.11/site-packages/onnxruntime/capi/libonnxruntime_providers_tensorrt.so

FROM locked AS build-cuda
RUN pip download --require-hashes --no-deps --only-binary :all: --dest /wheels -r requirements-cuda.lock
COPY --from=project /project /wheels
COPY scripts/image-install.sh ./
RUN sh image-install.sh

FROM ${PYTHON_IMAGE} AS runtime
ARG PYTHON_IMAGE
ARG VERSION=0.1.0
ARG REVISION=
# rasterio's wheels take expat from the system. Debian keeps one version of it: the newest, with the fixes.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends libexpat1 && rm -rf /var/lib/apt/lists/* && \
    groupadd --gid 1000 pansharpen && \
    useradd --uid 1000 --gid pansharpen --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pansharpen
# The root may be read-only: what libraries keep for themselves goes to /tmp.
ENV PATH=/opt/pansharpen/bin:$PATH \
    HOME=/tmp \
    XDG_CACHE_HOME=/tmp/cache \
    NUMBA_CACHE_DIR=/tmp/cache/numba \
    MPLCONFIGDIR=/tmp/cache/matplotlib \
    ORT_DISABLE_TELEMETRY=1
LABEL org.opencontainers.image.title="pansharpen_cli" \
      org.opencontainers.image.description="Pansharpening with neural networks on real scenes" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
USER 1000:1000
WORKDIR /data
HEALTHCHECK --interval=5m --timeout=1m --start-period=1m CMD ["pansharpen", "doctor"]
ENTRYPOINT ["pansharpen"]
CMD ["--help"]

FROM runtime AS cuda
USER 0:0
# Triton compiles what launches its kernels
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
USER 1000:1000
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility TRITON_CACHE_DIR=/tmp/cache/triton
COPY --from=build-cuda /opt/pansharpen /opt/pansharpen

FROM runtime AS cpu
COPY --from=build-cpu /opt/pansharpen /opt/pansharpen
