# AVO in a container, as a user of its own. Targets: cpu (default; speed is predicted) and cuda (measured on the
# node's GPUs, whose driver the container runtime brings). Built and run: docs/cluster.md.
#
#   docker build --target cpu -t avo:cpu .
#   docker build --target cuda -t avo:cuda .

ARG BASE=docker.io/library/debian:trixie-slim

FROM ${BASE} AS base
# wget: KubeRay's probes.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends bubblewrap ca-certificates python3 python3-venv wget \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 --shell /bin/bash avo \
    && python3 -m venv /opt/avo
ENV PATH=/opt/avo/bin:/usr/local/bin:/usr/bin:/bin
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY avo avo
COPY agents agents
COPY evaluator evaluator
COPY knowledge_base knowledge_base
COPY lineage_db lineage_db
COPY seeds seeds

FROM base AS cuda
# Triton compiles a launcher in C for each GPU.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev python3-dev \
    && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir --constraint constraints.txt '.[postgresql,serve,metrics,otlp]' 'ray[default]'
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000
WORKDIR /home/avo
CMD ["avo", "doctor"]

FROM base AS cpu
# torch without CUDA is in an index of its own, or among the wheels of a folder (PIP_FIND_LINKS).
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG TORCH=torch
ARG PIP_FIND_LINKS
RUN pip install --no-cache-dir --constraint constraints.txt --index-url "${TORCH_INDEX}" "${TORCH}" \
    && pip install --no-cache-dir --constraint constraints.txt '.[postgresql,serve,metrics,otlp]' 'ray[default]'
USER 1000
WORKDIR /home/avo
CMD ["avo", "doctor"]
