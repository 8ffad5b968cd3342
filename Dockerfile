# The demo and the search page, on the CPU. docs/install.md has the commands, and how much shared
# memory (--shm-size) training needs.
FROM python:3.11-slim

RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 trimodal

USER trimodal
# For volumes, which take over the owner.
RUN mkdir -p /home/trimodal/trimodal/data /home/trimodal/trimodal/models
WORKDIR /home/trimodal/trimodal
# With .git: DVC's experiments and comparisons are of commits.
COPY --chown=trimodal . .
RUN --mount=type=cache,target=/tmp/pip,uid=1000 PIP_CACHE_DIR=/tmp/pip make .venv/.installed
ENV PATH=/home/trimodal/trimodal/.venv/bin:$PATH

CMD ["make", "repro"]
