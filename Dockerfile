# dmpd's cloud daemons and dmpctl. Build: make image, or docker build .; run: docker run dmpd cloud-registry.
# Configuration: /etc/dmpd/dmpd.yaml, overlays in /etc/dmpd/dmpd.d, variables DMPD__SECTION__SETTING (docs/operations.md).
ARG BASE=debian:bookworm-slim

FROM ${BASE} AS build
RUN apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv binutils && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml requirements.lock ./
COPY packaging/image_pins.py packaging/wheels.py packaging/
# Wheels that make image has fetched are taken from there; without them, from PyPI (a CA of one's own comes as secret).
COPY LICENSE .cache/wheels/imag[e]/*.whl /wheels/
RUN --mount=type=secret,id=ca,target=/run/secrets/ca \
    if ls /wheels/*.whl >/dev/null 2>&1; then from="--no-index --find-links /wheels"; fi; \
    if [ -s /run/secrets/ca ]; then export PIP_CERT=/run/secrets/ca; fi; \
    python3 packaging/image_pins.py >/src/pins.txt && python3 -m venv /venv && \
    /venv/bin/pip install -q --disable-pip-version-check --no-deps --no-compile --require-hashes ${from:-} \
        --target /usr/lib/dmpd/vendor -r /src/pins.txt && rm -rf /usr/lib/dmpd/vendor/bin && \
    find /usr/lib/dmpd/vendor -name '*.cpython-*.so' -exec strip --strip-unneeded {} +
COPY dmpd /usr/lib/dmpd/app/dmpd
COPY packaging/docker/program.in ./
# Nothing can write byte code later, in a read-only container.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /usr/lib/dmpd && mkdir /programs && \
    for program in dmpd dmpctl; do sed "s/@PROGRAM@/$program/" program.in >/programs/$program; done && chmod 755 /programs/*

FROM ${BASE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="dmpd" \
      org.opencontainers.image.description="Device management for test labs: the cloud's daemons and dmpctl" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
RUN apt-get update -q && apt-get install -q -y --no-install-recommends ca-certificates python3 tini && \
    rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf/*-old /var/log/* /usr/share/doc /usr/share/man \
        /usr/share/locale && \
    find / -xdev -name __pycache__ -prune -exec rm -rf {} + && \
    python3 -m compileall -q -j 0 -x '/(distutils|ensurepip|idlelib|lib2to3|pydoc_data|unittest|wsgiref)/' /usr/lib/python3.* && \
    useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin dmpd
COPY --from=build /usr/lib/dmpd /usr/lib/dmpd
COPY --from=build /programs /usr/bin
COPY packaging/docker/dmpd.yaml /etc/dmpd/dmpd.yaml
ENV PYTHONPATH=/usr/lib/dmpd/app:/usr/lib/dmpd/vendor PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
STOPSIGNAL SIGTERM
# Alive, not ready: a daemon without Kafka or broker waits for it, and a restart would not help.
HEALTHCHECK --interval=10s --timeout=10s --start-period=30s --retries=3 CMD ["dmpctl", "health", "--of-pid", "1"]
# tini is process 1: it hands signals on, also before the daemon listens to them, and reaps what becomes an orphan.
ENTRYPOINT ["/usr/bin/tini", "--", "dmpd"]
CMD ["--help"]
