# One image for the web process (the default command) and the worker (`failover-worker`). compose.yaml runs both with a Valkey.
#
# The base is an exact tag. A build that must give the same image for ever pins the digest, which
#     docker buildx imagetools inspect python:3.11.14-slim-bookworm
# prints: --build-arg PYTHON=python:3.11.14-slim-bookworm@sha256:...
ARG PYTHON=python:3.11.14-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /src
RUN python -m venv /opt/failover
COPY requirements.txt ./
RUN /opt/failover/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE routes.json ./
COPY examples/batch.jsonl ./examples/
COPY policies ./policies
COPY failover_worker ./failover_worker
COPY ops ./ops
COPY worker ./worker
COPY producer ./producer
RUN /opt/failover/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps .

FROM ${PYTHON}
RUN useradd --uid 10001 --create-home --home-dir /home/failover failover
COPY --from=build /opt/failover /opt/failover
ENV PATH=/opt/failover/bin:$PATH PORT=8000
USER 10001
# routes.json, policies/ and .env are read here, where they are mounted; else the packaged examples
WORKDIR /home/failover
EXPOSE 8000
# of the web process; compose.yaml has the worker's
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=4)"]
# no shell around it: SIGTERM reaches the process, which drains
CMD ["failover", "serve"]
