"""The guide's way to a cloud under supervisord, typed as it stands, on a machine whose changes are gone afterwards.

In a mount namespace: what is written below /etc, /usr/bin, /opt, /run, /var/log and in the checkout is in memory.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support import document_blocks
from tests.support.services import unavailable

pytestmark = [pytest.mark.slow, pytest.mark.services, pytest.mark.timeout(600)]
PARTS = ("bridge", "access", "cloud-registry")
WAIT_S = 120
MACHINE = r"""
set -eu
checkout=$1 given=$2
mount -t tmpfs -o mode=755 tmpfs /run
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /run/checkout
over() {
    mkdir -p "/mnt/$1/over" "/mnt/$1/work"
    mount -t overlay -o "lowerdir=$2,upperdir=/mnt/$1/over,workdir=/mnt/$1/work" overlay "$3"
}
over etc /etc /etc
over bin /usr/bin /usr/bin
over checkout "$checkout" /run/checkout
over opt /opt /opt
mount -t tmpfs -o mode=755 tmpfs /var/log
userdel dmpd 2>/dev/null || true
cd /run/checkout
"""
GIVEN = r"""
rm -rf /etc/dmpd
cp -r "$given" /etc/dmpd
chown -R dmpd /etc/dmpd/tls
"""
ENDED = r"""
for _ in $(seq WAIT); do
    [ "$(cat /var/log/dmpd/*.log | grep -c ' is ready$')" -lt COUNT ] || break
    sleep 1
done
supervisorctl -c etc/supervisor/supervisord.conf status || true
cat /var/log/dmpd/*.log
supervisorctl -c etc/supervisor/supervisord.conf stop all
"""


def test_the_clouds_daemons_run_as_the_guide_says(kafka, mosquitto, postgres_server, tmp_path):
    if os.geteuid() != 0 or not Path("/usr/bin/supervisord").exists():
        unavailable("needs root: mounts; and Debian's supervisor")
    install, begin = document_blocks.of_kind("tests/packaging/test_supervisord_guide.py")
    given = tmp_path / "etc"
    with postgres_server.database() as database:
        configure(given, kafka, mosquitto, database)
        ended = ENDED.replace("WAIT", str(WAIT_S)).replace("COUNT", str(len(PARTS)))
        # The last command, status, says with its exit code that not all runs yet.
        script = MACHINE + "\n".join([*install.commands, GIVEN, *begin.commands]) + " || true\n" + ended
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
        command = [*apart, "bash", "-c", script, "guide", document_blocks.ROOT, given]
        ours = ("DMPD", "PIP_FIND_LINKS")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        assert said.count(" RUNNING ") >= len(PARTS), said
        for name in PARTS:
            assert f"{name}: stopped" in said, said
            assert f"{name} is ready" in said, said


def configure(folder, kafka, mosquitto, database):
    """What lies in /etc/dmpd before: the file, and the certificates of the two services."""
    (folder / "tls").mkdir(parents=True)
    for name in ("svc-bridge", "svc-access"):
        settings = mosquitto.settings(name)
        for file, copy in (
            (settings.ca_file, "ca.crt"),
            (settings.cert_file, name + ".crt"),
            (settings.key_file, name + ".key"),
        ):
            shutil.copy(file, folder / "tls" / copy)
    socket = database.conninfo.split()[0].removeprefix("host=")
    for path, mode in ((socket, 0o755), (f"{socket}/.s.PGSQL.5432", 0o777)):
        Path(path).chmod(mode)
    topics = {name: kafka.unique(name) for name in ("info", "rsp", "cmd", "info_dead")}
    stream = {"topic": topics["info"], "dead_letter_topic": topics["info_dead"], "group": kafka.unique("group")}
    sizes = {"partitions": 2, "replication_factor": 1, "min_insync_replicas": 1}
    tls = {"ca_file": "ca.crt", "cert_file": "svc-bridge.crt", "key_file": "svc-bridge.key"}
    text = {
        "kafka": {"bootstrap_servers": kafka.bootstrap_servers},
        "mqtt": {"port": settings.port} | {name: f"/etc/dmpd/tls/{file}" for name, file in tls.items()},
        "database": {"conninfo": database.conninfo},
        "topics": topics | sizes,
        "bridge": {"health_bind": "unix:/run/dmpd/bridge.sock"},
        "access": {"health_bind": "unix:/run/dmpd/access.sock"},
        "cloud_registry": {"health_bind": "unix:/run/dmpd/cloud-registry.sock", "stream": stream},
    }
    (folder / "dmpd.yaml").write_text(yaml.safe_dump(text))
