"""A bare Debian in a chroot with processes of its own, as a router: packages from the mirror, a real supervisord.

What runs in it sees its own process and mount namespace, and supervisord's programs the network namespace of a LAN; apt
sees the machine's network. All of it goes with the one process that holds the namespaces.
"""

import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import debian, documented

WAIT_S = 90.0
_POLL_S = 0.1
_HOLD = r"""
set -eu
root=$1 leases=$2 archives=$3
read -r pid _ </proc/self/stat
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=755 dev "$root/dev"
for node in null zero full random urandom tty; do
    touch "$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
ln -s /proc/self/fd "$root/dev/fd"
mkdir -p "$root/dev/shm" "$root/var/lib/misc"
mount --bind "$leases" "$root/var/lib/misc"
mount --bind "$archives" "$root/var/cache/apt/archives"
printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
echo "$pid"
while :; do sleep 3600 & wait $! || true; done
"""


class Router:
    """One root tree; commands run in it as root."""

    def __init__(self, root: Path, holder: int) -> None:
        self.root = root
        self._enter = ["nsenter", "--target", str(holder), "--mount", "--pid"]

    def run(self, *argv: str, code: int | None = 0, in_lan: bool = False, stdin: bytes = b"") -> str:
        """Run a command, which must end with ``code`` (None = with any); returns what it says."""
        enter = [*self._enter, *(["--net"] if in_lan else [])]
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        clean = ["env", "-i", path, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
        done = subprocess.run(
            [*enter, "chroot", self.root, *clean, *argv], input=stdin, capture_output=True, timeout=300, check=False
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert code in (None, done.returncode), f"{shlex.join(argv)}: {done.returncode}\n{said}"
        return said

    def documented(self, page: str, beginning: str, *, code: int = 0, **words: str) -> str:
        """Run a command as docs/``page`` has it, in /root; it must end with ``code``. Returns what it says."""
        return self.run("bash", "-c", f"cd /root && {documented.command(page, beginning, **words)}", code=code)

    def apt(self, *words: str, code: int | None = 0) -> str:
        return self.run("apt-get", "-q", "-y", "--no-install-recommends", *words, code=code)

    def install(self, deb: Path, *, code: int | None = 0) -> str:
        """Install a package file, with what it depends on."""
        (self.root / "root" / deb.name).write_bytes(deb.read_bytes())
        return self.apt("--allow-downgrades", "install", f"/root/{deb.name}", code=code)

    def start_supervisord(self) -> None:
        """Debian's own, by Debian's own configuration, in the LAN's namespace."""
        self.run("supervisord", "-c", "/etc/supervisor/supervisord.conf", in_lan=True)
        self.until(
            lambda: "refused" not in (said := self.supervisorctl("pid")) and said.strip().isdigit(), "supervisord"
        )

    def supervisorctl(self, *words: str) -> str:
        return self.run("supervisorctl", *words, code=None)

    def state(self) -> str:
        """supervisord's word for the daemon, empty if it knows none."""
        words = self.supervisorctl("status", "local-registry").split()
        return words[1] if len(words) > 1 and words[0] == "local-registry" else ""

    def log(self) -> str:
        log = self.root / "var/log/dmpd/local-registry.log"
        return log.read_text(errors="replace")[-4000:] if log.exists() else ""

    def until(self, condition: Callable[[], object], what: str) -> None:
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline_s, f"{what} not within {WAIT_S:g} s; state {self.state()}; {self.log()}"
            time.sleep(_POLL_S)


@contextmanager
def router_root(namespace: str, leases: Path, suite: str) -> Iterator[Router]:
    """A fresh one, in the network namespace ``namespace``; /var/lib/misc is the folder ``leases``."""
    tar = debian.root_tar(suite)
    with debian.unpacked(tar) as root:
        (root / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
        inside = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        command = [
            "ip",
            "netns",
            "exec",
            namespace,
            *inside,
            "bash",
            "-c",
            _HOLD,
            "hold",
            root,
            leases,
            debian.archives(suite),
        ]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout is not None
                line = holder.stdout.readline()
                assert line.strip().isdigit(), "the namespaces could not be made"
                yield Router(root, int(line))
            finally:
                holder.kill()
                holder.wait()
                _wait_gone(root)


def _wait_gone(root: Path) -> None:
    """Until the kernel has ended all that ran in ``root``: its mounts go with the last process."""
    deadline_s = time.monotonic() + WAIT_S
    while any(str(root) in link for link in _roots()):
        assert time.monotonic() < deadline_s, f"something still runs in {root}"
        time.sleep(_POLL_S)


def _roots() -> Iterator[str]:
    for link in Path("/proc").glob("[0-9]*/root"):
        try:
            yield str(link.readlink())
        except OSError:  # it has ended
            continue
