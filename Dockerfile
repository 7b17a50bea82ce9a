# syntax=docker/dockerfile:1
# The router, and what it needs, in a folder that nobody writes to. How to build and to pin: docs/image.md.
#
#   VARIANT  cpu: remote and ONNX backends · cuda: torch backends on NVIDIA GPUs besides
#   EXTRAS   which of tracing, redis, report; separated by commas
#
# A base is named by its digest. That of the default was published for python:3.12.14-slim-bookworm; give a newer one.
ARG PYTHON_IMAGE=docker.io/library/python:3.12.14-slim-bookworm@sha256:0f5b26b9518d002b6173fd61daad821fa340635ebfec5bba471013f9ca114579
ARG VARIANT=cpu

FROM ${PYTHON_IMAGE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ARG VARIANT
ARG EXTRAS=tracing,redis
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu126
WORKDIR /src
COPY requirements/ requirements/
COPY pyproject.toml README.md LICENSE ./
COPY policies/ policies/
COPY backends/ backends/
COPY router/ router/
COPY tools/image_requirements.py tools/
RUN python -m venv /opt/pointsman \
    && python tools/image_requirements.py --variant "$VARIANT" --extras "$EXTRAS" > /tmp/image.lock \
    && /opt/pointsman/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: --no-compile -r /tmp/image.lock \
    && if [ "$VARIANT" = cuda ]; then /opt/pointsman/bin/pip install --no-cache-dir --no-compile --extra-index-url "$TORCH_INDEX" -r requirements/torch.txt; fi
RUN python -m venv /tmp/builder \
    && python tools/image_requirements.py --build > /tmp/build.lock \
    && /tmp/builder/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r /tmp/build.lock \
    && /tmp/builder/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /tmp/wheels . \
    && /opt/pointsman/bin/pip install --no-cache-dir --no-deps --no-index --no-compile --find-links /tmp/wheels pointsman \
    && python tools/image_requirements.py --strip /opt/pointsman \
    && /opt/pointsman/bin/python -m compileall -q -j 0 /opt/pointsman/lib

FROM ${PYTHON_IMAGE} AS final
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="pointsman" \
      org.opencontainers.image.description="Inference router: policy decides where a request may go, and can prove it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
# KubeRay starts Ray by a shell and asks for its health by wget where Ray is older than 2.53; the base has the shell.
RUN groupadd --gid 10001 pointsman \
    && useradd --no-log-init --uid 10001 --gid 10001 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin pointsman
COPY --from=build /opt/pointsman /opt/pointsman
ENV PATH=/opt/pointsman/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /tmp
EXPOSE 8000 8001
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8001/healthz', timeout=4)"]
ENTRYPOINT ["pointsman"]
CMD ["--help"]
