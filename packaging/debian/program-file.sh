#!/bin/sh
# etc/supervisor/local-registry.conf (stdin) as a RAE needs it: paths instead of supervisord's environment, its own user.
# Fails if anything of the environment is left.
set -eu
text=$(sed -e '/^;/d' \
    -e 's|%(ENV_DMPD)s|/usr/bin/dmpd|' \
    -e 's|%(ENV_DMPD_LOCAL_REGISTRY_CONFIG)s|/etc/dmpd/local-registry.yaml|' \
    -e 's|%(ENV_DMPD_LOG)s|/var/log/dmpd|' \
    -e 's|^command=.*|&\nuser=dmpd\ndirectory=/var/lib/dmpd\numask=027|')
case $text in
*ENV_*)
    echo "etc/supervisor/local-registry.conf: something of supervisord's environment is left" >&2
    exit 1
    ;;
esac
echo "; dmpd's Local Registry. Linked from /etc/supervisor/conf.d by the package; a change here is lost at the next upgrade."
printf '%s\n' "$text"
