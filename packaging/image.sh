#!/bin/bash
# Builds the image; says what it does and how long it took. usage: packaging/image.sh [TAG]     (default dmpd:latest)
# DOCKER names the client and its options (default docker); BASE the base image, CA a file with certificates for PyPI.
# Needs .venv (packaging/setup.sh); PyPI for the first build and after a change of requirements.lock.
set -euo pipefail
cd "$(dirname "$0")/.."
TAG=${1:-dmpd:latest}
STARTED=$(date +%s)
WHEELS=.cache/wheels/image

say() { printf '%s\n' "image: $*"; }

mkdir -p .cache/wheels
.venv/bin/python packaging/image_pins.py >"$WHEELS.txt.$$"
trap 'rm -rf "$WHEELS.txt.$$" "$WHEELS.new.$$"' EXIT
if ! cmp -s "$WHEELS.txt.$$" "$WHEELS/requirements.txt"; then
    say "wheels ($WHEELS) ..."
    mkdir "$WHEELS.new.$$"
    cp "$WHEELS.txt.$$" "$WHEELS.new.$$/requirements.txt"
    env -u PIP_FIND_LINKS .venv/bin/python -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: \
        --require-hashes --implementation cp --python-version 3.11 --abi cp311 --abi abi3 --abi none \
        --platform "manylinux_2_28_$(uname -m)" --platform "manylinux_2_17_$(uname -m)" --platform "manylinux2014_$(uname -m)" \
        --dest "$WHEELS.new.$$" -r "$WHEELS.txt.$$"
    rm -rf "$WHEELS"
    mv "$WHEELS.new.$$" "$WHEELS"
fi

say "$TAG ..."
# shellcheck disable=SC2086
DOCKER_BUILDKIT=1 ${DOCKER:-docker} build --progress=plain --network host ${BASE:+--build-arg "BASE=$BASE"} \
    ${CA:+--secret "id=ca,src=$CA"} --build-arg "REVISION=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)" \
    --build-arg "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" -t "$TAG" .
say "$TAG in $(($(date +%s) - STARTED)) s"
