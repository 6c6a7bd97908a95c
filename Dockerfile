# docker build -t pansharpen .
# docker run --rm -v "$PWD:/data" pansharpen run pan.tif ms.tif -o out.tif
#
# TORCH_INDEX: where pip finds torch; empty is the default index (CUDA builds on Linux, several GB).
FROM python:3.11-slim-bookworm AS build
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/pansharpen
ENV PATH=/opt/pansharpen/bin:$PATH
RUN pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} 'torch>=2.10,<2.14'
WORKDIR /src
COPY requirements.lock ./
RUN pip install --require-hashes --no-deps -r requirements.lock
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY pansharpen_cli pansharpen_cli
COPY models models
RUN pip install --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
COPY --from=build /opt/pansharpen /opt/pansharpen
ENV PATH=/opt/pansharpen/bin:$PATH ORT_DISABLE_TELEMETRY=1
RUN useradd --create-home --uid 1000 pansharpen
USER pansharpen
WORKDIR /data
ENTRYPOINT ["pansharpen"]
CMD ["--help"]
