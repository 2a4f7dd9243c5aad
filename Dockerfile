# One image for a server, a node and a run, without a GPU; docs/operations.md says how to use it.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY fedmer fedmer
COPY experiments experiments
# With 'extract' besides, a node can make features of its recordings.
ARG EXTRAS=flower,tables
# Where pip finds PyTorch's CPU build. Without it the image holds the build for GPUs, which is large.
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /opt/fedmer \
    && /opt/fedmer/bin/pip install --no-cache-dir -c constraints.txt ".[${EXTRAS}]"

FROM python:3.11-slim
COPY --from=build /opt/fedmer /opt/fedmer
RUN useradd --uid 10001 --create-home fedmer \
    && install -d -m 700 -o fedmer -g fedmer /srv/fedmer
ENV PATH=/opt/fedmer/bin:$PATH
USER fedmer
WORKDIR /srv/fedmer
# Of a server, for its nodes; a node needs none.
EXPOSE 8443
ENTRYPOINT ["fedmer"]
CMD ["--help"]
