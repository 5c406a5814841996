#!/bin/sh
# Certificates for a first look: a CA, Mosquitto's (for the names mosquitto, localhost and those given), svc-bridge's,
# svc-access's, and one for each further principal; svc-canary's and those of N canaries (canary=N, 220 for the crowd of 200
# in compose.yaml); and a password for the database. What is there already is kept.
# usage: certificates.sh FOLDER [host=NAME ...] [canary=N] [PRINCIPAL ...]
# for example: certificates.sh tls host=mqtt.example.net canary=220 rae-1
set -eu
FOLDER=$1; shift
DAYS=825
umask 077
mkdir -p "$FOLDER"
cd "$FOLDER"

key() { [ -e "$1.key" ] || openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

sign() { # NAME EXTENSIONS: a certificate whose CN is NAME
    [ ! -e "$1.crt" ] || return 0
    key "$1"
    printf '%s\n' "basicConstraints=critical,CA:FALSE" "$2" >"$1.ext"
    openssl req -new -key "$1.key" -subj "/CN=$1" |
        openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days "$DAYS" -sha256 -extfile "$1.ext" -out "$1.crt" 2>/dev/null
    rm -f "$1.ext"
}

if [ ! -e ca.crt ]; then
    key ca
    openssl req -x509 -new -key ca.key -sha256 -days "$DAYS" -subj "/CN=dmpd site CA" -out ca.crt
fi
# The list of what is revoked: nothing. It must be there, and good as long as the CA, or Mosquitto refuses everybody.
if [ ! -e crl.pem ]; then
    : >revoked
    printf '[ca]\ndefault_ca=site\n[site]\ndatabase=revoked\ndefault_md=sha256\n' >revoked.conf
    openssl ca -gencrl -config revoked.conf -keyfile ca.key -cert ca.crt -crldays "$DAYS" -out crl.pem 2>/dev/null
    rm -f revoked.conf
fi
names=DNS:mosquitto,DNS:localhost,IP:127.0.0.1
for word in "$@"; do
    case $word in host=*) names="$names,DNS:${word#host=}" ;; esac
done
sign mosquitto "extendedKeyUsage=serverAuth
subjectAltName=$names"
sign svc-bridge "extendedKeyUsage=clientAuth"
sign svc-access "extendedKeyUsage=clientAuth"
for word in "$@"; do
    case $word in canary=*)
        sign svc-canary "extendedKeyUsage=clientAuth"
        mkdir -p canary
        number=1
        while [ "$number" -le "${word#canary=}" ]; do
            name=$(printf 'canary-%04d' "$number")
            if [ ! -e "canary/$name.crt" ]; then
                sign "$name" "extendedKeyUsage=clientAuth"
                mv "$name.crt" "$name.key" canary/
            fi
            number=$((number + 1))
        done
        chmod 755 canary
        chmod 644 canary/*.crt
        if [ "$(id -u)" = 0 ]; then chown 10001:10001 svc-canary.key canary/*.key; fi
        ;;
    esac
done
for word in "$@"; do
    case $word in *=*) ;; *) sign "$word" "extendedKeyUsage=clientAuth" ;; esac
done
[ -e database-password ] || openssl rand -hex 24 >database-password
# The daemons run as user 10001, Mosquitto as its image's 1883. The CA's key is nobody's but ours: keep it elsewhere.
chmod 755 .
chmod 644 ./*.crt crl.pem
if [ "$(id -u)" = 0 ]; then
    chown 1883:1883 mosquitto.key
    chown 10001:10001 svc-bridge.key svc-access.key
    chmod 640 database-password
    chgrp 10001 database-password
else
    echo "certificates.sh: not root, so the containers' users cannot read $FOLDER/*.key and database-password:" >&2
    echo "  chown 1883 mosquitto.key; chown 10001 svc-*.key; chgrp 10001 database-password; chmod g+r database-password" >&2
fi
