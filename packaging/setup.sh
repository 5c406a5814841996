#!/bin/sh
# Brings a checkout to where everything runs: Debian packages (when root), .venv, Kafka's jars. Quick when nothing is
# missing; each step says what it does and how long it took. Called by make; an argument names a further group of
# packages: deb = what builds and tests the Debian package; image = what builds the image, and what tests it, supervisord
# 4.2.5 and the alert rules.
set -eu
cd "$(dirname "$0")/.."
STARTED=$(date +%s)
# python3-venv brings ensurepip; the servers and the LAN's programs are for the lab and its tests.
PACKAGES="python3-venv openjdk-17-jre-headless maven mosquitto mosquitto-clients postgresql dnsmasq-base busybox iproute2 iputils-ping nftables openssl util-linux"
IMAGE_PACKAGES="docker-compose docker.io mmdebstrap prometheus supervisor"
DEB_PACKAGES="build-essential debhelper lintian man-db piuparts mmdebstrap binutils-aarch64-linux-gnu qemu-user-static"
for group in "$@"; do
    case $group in
    deb) PACKAGES="$PACKAGES $DEB_PACKAGES" ;;
    image) PACKAGES="$PACKAGES $IMAGE_PACKAGES" ;;
    *)
        echo "setup: unknown group '$group'; there are: deb image" >&2
        exit 64
        ;;
    esac
done

say() { printf '%s\n' "setup: $*"; }

step() { # WHAT COMMAND...
    what=$1; shift
    begun=$(date +%s)
    say "$what ..."
    "$@"
    say "$what: $(($(date +%s) - begun)) s"
}

missing_packages() {
    for package in $PACKAGES; do
        case $package in
            # Any Java 17 or later and any PostgreSQL will do.
            openjdk-17-jre-headless) command -v java >/dev/null && continue ;;
            maven) command -v mvn >/dev/null && continue ;;
            postgresql) ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 && continue ;;
        esac
        [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || printf '%s ' "$package"
    done
}

# No service may start by itself, and PostgreSQL shall not make a cluster: the lab runs its own of everything.
POLICY=/usr/sbin/policy-rc.d
NO_CLUSTER=/etc/postgresql-common/createcluster.d/dmpd-lab.conf
MADE_POLICY=
take_back() {
    rm -f "$NO_CLUSTER"
    if [ -n "$MADE_POLICY" ]; then rm -f "$POLICY"; MADE_POLICY=; fi
}

install_packages() {
    trap take_back EXIT
    trap 'exit 1' INT TERM HUP
    if [ ! -e "$POLICY" ]; then
        MADE_POLICY=1
        printf '#!/bin/sh\nexit 101\n' >"$POLICY"
        chmod 755 "$POLICY"
    fi
    mkdir -p "$(dirname "$NO_CLUSTER")"
    printf 'create_main_cluster = false\n' >"$NO_CLUSTER"
    DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 update
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120 --no-install-recommends install "$@"
    take_back
    trap - EXIT INT TERM HUP
}

debian_packages() {
    command -v dpkg-query >/dev/null || return 0
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ]; then
        say "not root, so these Debian packages are not installed, and what needs them is skipped or refused:"
        say "  apt-get install $missing"
        return 0
    fi
    # shellcheck disable=SC2086
    step "Debian packages: $missing" install_packages $missing
}

python_program() {
    for candidate in /usr/bin/python3 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            printf '%s' "$candidate"
            return 0
        fi
    done
    say "no Python 3.11 or later found" >&2
    return 1
}

virtual_environment() {
    # The stamp names the content that was installed: a changed lock installs again, an interrupted run too.
    stamp=.venv/installed-$(cat requirements.lock pyproject.toml | sha256sum | cut -c 1-16)
    [ -e "$stamp" ] && return 0
    if ! .venv/bin/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$(python_program)
        step ".venv from $python" "$python" -m venv --clear .venv
    fi
    rm -f .venv/installed-*
    step "Python packages of requirements.lock" .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --require-hashes -r requirements.lock
    step "dmpd itself" .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        --no-deps --no-build-isolation --editable .
    : >"$stamp"
}

kafka_jars() {
    [ -d .cache/kafka/libs ] && return 0
    if ! command -v mvn >/dev/null || ! command -v java >/dev/null; then
        say "no Java or Maven, so no Kafka: the lab and the tests that need it will not run"
        return 0
    fi
    step "Kafka's jars from Maven Central into .cache/kafka" \
        .venv/bin/python -m dmpd.lab.kafka
}

debian_packages
virtual_environment
kafka_jars
took=$(($(date +%s) - STARTED))
[ "$took" -le 1 ] || say "done in $took s"
