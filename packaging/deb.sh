#!/bin/bash
# Builds the Debian package dmpd-local-registry for one architecture; says what it does and how long it took.
# usage: packaging/deb.sh [amd64|arm64] [FOLDER]     FOLDER gets the .deb (default build/deb)
# Needs .venv (packaging/setup.sh) and the group "deb" of its packages; PyPI for the first build of each architecture.
set -euo pipefail
cd "$(dirname "$0")/.."
ARCH=${1:-$(dpkg --print-architecture)}
OUT=${2:-build/deb}
STARTED=$(date +%s)
VERSION=$(dpkg-parsechangelog -l packaging/debian/changelog -S Version)
WHEELS=.cache/wheels/$ARCH

say() { printf '%s\n' "deb: $*"; }

mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
WORK=$(mktemp -d "$OUT/work.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'exit 1' INT TERM HUP

say "wheels of $ARCH ($WHEELS) ..."
.venv/bin/python packaging/wheels.py "$ARCH" "$WHEELS"

# What is committed or could be, and nothing that tests and tools leave behind.
SOURCE=$WORK/dmpd-$VERSION
mkdir "$SOURCE"
git ls-files -z --cached --others --exclude-standard -- dmpd docs etc CHANGELOG.md LICENSE |
    while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done |
    tar --null --files-from=- -cf - | tar -C "$SOURCE" -xf -
cp -r packaging/debian "$SOURCE/debian"
cp -r "$WHEELS" "$SOURCE/wheels"
env -u DMPD_CONFIG PYTHONPATH="$SOURCE" .venv/bin/python -m dmpd.cli.manual "$SOURCE/pages"

say "dmpd-local-registry $VERSION for $ARCH ..."
CROSS=
[ "$ARCH" = "$(dpkg --print-architecture)" ] || CROSS="-a$ARCH -Pcross"
# shellcheck disable=SC2086
(cd "$SOURCE" && DEB_BUILD_OPTIONS=parallel=1 dpkg-buildpackage -us -uc -b $CROSS) >"$WORK/log" 2>&1 || {
    cat "$WORK/log" >&2
    exit 1
}
mv "$WORK/dmpd-local-registry_${VERSION}_$ARCH.deb" "$OUT/"
FILE=$OUT/dmpd-local-registry_${VERSION}_$ARCH.deb
say "$FILE: $(du -k "$FILE" | cut -f1) KiB, in $(($(date +%s) - STARTED)) s"
