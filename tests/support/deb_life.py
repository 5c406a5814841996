"""A router with a LAN, devices on it and a cloud, as the package's life needs it, and the steps of that life.

Each step begins where another has left the router, says what must be so, and leaves the daemon running.
"""

import asyncio
import json
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from dmpd.lab.certificates import CertificateAuthority
from dmpd.lab.lan import LAN_INTERFACE
from dmpd.lab.mosquitto import Mosquitto
from dmpd.lab.server import free_ports
from dmpd.local_registry.daemon import LOCK_FILE
from dmpd.model.messages import Status
from dmpd.runtime import exit_codes
from tests.support import debian
from tests.support.edge_bridge import EdgeBridge
from tests.support.lan import RunningLan, running_lan
from tests.support.router_root import Router, router_root
from tests.support.services import public_folder, start
from tests.support.signing import sign

RAE = "R-packaged"


class Guide(NamedTuple):
    """A page that has the way from the package to a ready daemon, and what stands there for what is one's own."""

    page: str
    serial: str
    certificate: str


GUIDES = {
    "bookworm": Guide("rae.md", "SERIAL", "client.crt"),
    "trixie": Guide("operations.md", "rae-0001", "rae-0001.crt"),
}
"""Each is followed once."""
NAME = "dmpd-local-registry"
PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}


class Cloud:
    """A broker that the router reaches, and a bridge that takes what comes."""

    def __init__(self, folder: Path, address: str) -> None:
        self.authority = CertificateAuthority(folder / "tls")
        self.port = free_ports(1)[0]
        self.address = address
        self.server = Mosquitto(
            folder / "mosquitto", port=self.port, authority=self.authority, more_addresses=[address]
        )
        self.bridge = EdgeBridge()
        self._loop = asyncio.new_event_loop()

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = threading.Thread(target=self._loop.run_forever, name="bridge", daemon=True)
        with start(self.server):
            thread.start()
            self._call(self.bridge.open(self.authority.client("svc-bridge").mqtt_settings(port=self.port)))
            try:
                yield
            finally:
                self._call(self.bridge.close())
                self._loop.call_soon_threadsafe(self._loop.stop)
                thread.join(10)
                self._loop.close()

    def states(self, since: int = 0) -> list[str]:
        """What its statuses said, of the messages taken from the ``since``-th on."""
        return [one.state for one in list(self.bridge.taken)[since:] if isinstance(one, Status)]

    def revs(self) -> dict[str, set[int]]:
        """The revs that arrived of each device session."""
        found: dict[str, set[int]] = {}
        for one in list(self.bridge.taken):
            if hasattr(one, "rev"):
                found.setdefault(one.session, set()).add(one.rev)
        return found

    def _call(self, coroutine) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)


class Life:
    """The router, its LAN and its cloud, and what a person looks at."""

    def __init__(self, router: Router, lan: RunningLan, cloud: Cloud, suite: str) -> None:
        self.router, self.lan, self.cloud = router, lan, cloud
        self.python, self.guide = PYTHONS[suite], GUIDES[suite]

    def devices(self) -> dict[str, dict]:
        """By host name."""
        said = self.router.run("dmpctl", "local", "devices", "--json", code=None)
        found = json.loads(said) if said.startswith("[") else []
        return {one["record"]["interfaces"][0].get("hostname"): one for one in found if one["record"].get("interfaces")}

    def status(self) -> dict:
        said = self.router.run("dmpctl", "local", "status", "--json", code=None)
        return json.loads(said) if said.startswith("{") else {"reason": said}

    def plug_in(self, *numbers: int) -> None:
        for number in numbers:
            self.lan.start_dut(self.lan.lab.dut(number))

    def until_devices(self, *numbers: int) -> None:
        wanted = {f"dut-{number}" for number in numbers}
        self.router.until(lambda: wanted <= self.devices().keys(), f"devices {wanted}")

    def until_ready(self) -> None:
        self.router.until(lambda: self.router.state() == "RUNNING" and self.status().get("state") == "ready", "ready")

    def check_nothing_lost(self) -> None:
        """Every rev that the store has arrived, and nothing waits."""

        def all_arrived() -> bool:
            devices, arrived = self.devices().values(), self.cloud.revs()
            return self.status().get("outbox_rows") == 0 and all(
                set(range(1, one["rev"] + 1)) <= arrived.get(one["session"], set()) for one in devices
            )

        self.router.until(all_arrived, "all revs in the cloud")


@contextmanager
def beginning(suite: str) -> Iterator[Life]:
    """A bare Debian, a LAN without DHCP, a broker; nothing of dmpd yet."""
    debian.need_tools()
    with public_folder() as folder, running_lan(devices=5) as lan:
        lan.lab.state_dir.chmod(0o755)  # the lease file is there for all to read, as dnsmasq's own is
        cloud = Cloud(folder, lan.lab.uplink_broker_address)
        with cloud.running(), router_root(lan.lab.router_namespace, lan.lab.state_dir, suite) as router:
            yield Life(router, lan, cloud, suite)


def version_of(deb: Path) -> str:
    return debian.run("dpkg-deb", "-f", deb, "Version").strip()


def repacked(deb: Path, suffix: str, folder: Path) -> Path:
    """The same package under a later version."""
    own = version_of(deb)
    version = f"{own}{suffix}"
    tree = folder / version
    debian.run("dpkg-deb", "-R", deb, tree)
    for file in (tree / "DEBIAN/control", tree / "DEBIAN/preinst"):
        file.write_text(file.read_text().replace(own, version))
    out = folder / f"{NAME}_{version}_amd64.deb"
    debian.run("dpkg-deb", "--root-owner-group", "-b", tree, out)
    return out


def installed_on_a_bare_system(life: Life, deb: Path) -> None:
    router = life.router
    (router.root / "root" / deb.name).write_bytes(deb.read_bytes())
    said = router.documented(life.guide.page, "apt-get install ./", install="install -y --no-install-recommends")
    assert "next: dmpctl enroll SERIAL" in said
    assert router.run("/usr/bin/python3", "-I", "-c", debian.IMPORTS).split() == [life.python, "x86_64"]
    compiled = [path.name.split(".")[-2] for path in (router.root / "usr/lib/dmpd/app/dmpd").rglob("*.pyc")]
    assert set(compiled) == {f"cpython-{life.python.replace('.', '')}"}, "byte code of this Debian's Python"
    assert router.run("dmpd", "--version").startswith("dmpd 0.")
    router.start_supervisord()
    router.until(lambda: router.state() == "RUNNING", "running")
    router.until(lambda: life.status().get("state") == "degraded", "degraded")
    assert "degraded: not enrolled" in router.documented(
        life.guide.page, "dmpctl local status", code=exit_codes.DIFFERENT
    )


def enrolled(life: Life) -> None:
    router, cloud, guide = life.router, life.cloud, life.guide
    life.lan.start_dnsmasq()
    words = {guide.serial: RAE, "mqtt.example.net:8883": f"{cloud.address}:{cloud.port}", "br-lan": LAN_INTERFACE}
    assert "have this signed" in router.documented(guide.page, f"dmpctl enroll {guide.serial} --broker", **words)
    router.until(lambda: "client.crt" in life.status().get("reason", ""), "degraded for its certificate")
    tls = router.root / "etc/dmpd/tls"
    (router.root / "root" / guide.certificate).write_bytes(sign(tls / "client.csr", cloud.authority))
    (router.root / "root/ca.crt").write_bytes(cloud.authority.ca_file.read_bytes())
    said = router.documented(guide.page, f"dmpctl enroll --certificate {guide.certificate} --ca")
    assert said.splitlines()[-1] == "ready", said
    owners(life)


def owners(life: Life) -> None:
    """Who may read what, and that the daemon has no privileges."""
    root = life.router.root
    uid, gid = (int(life.router.run("id", flag, "dmpd")) for flag in ("-u", "-g"))
    for path, owner, mode in (
        ("etc/dmpd/tls/client.key", (0, gid), 0o640),
        ("etc/dmpd/tls", (0, gid), 0o750),
        ("var/lib/dmpd", (uid, gid), 0o750),
        ("var/lib/dmpd/control.sock", (uid, gid), 0o660),
        (f"var/lib/dmpd/{LOCK_FILE}", (uid, gid), 0o640),
    ):
        found = (root / path).stat()
        assert ((found.st_uid, found.st_gid), stat.S_IMODE(found.st_mode)) == (owner, mode), path
    pid = life.router.supervisorctl("pid", "local-registry").strip()
    status = life.router.run("cat", f"/proc/{pid}/status")
    assert f"Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n" in status
    assert "CapEff:\t0000000000000000\n" in status


def devices_arrive(life: Life) -> None:
    life.plug_in(1, 2)
    life.until_devices(1, 2)
    life.check_nothing_lost()
    assert life.router.documented(life.guide.page, "dmpctl local status").count("connected") == 1


def dnsmasq_tells_of_leases(life: Life) -> None:
    """The package brings nothing for dnsmasq; the command does, with Debian's own judging it, and takes it back."""
    router = life.router
    drop_in = router.root / "etc/dnsmasq.d/dmpd.conf"
    assert not drop_in.exists()
    router.apt("install", "dnsmasq")
    assert "+dhcp-script=/usr/lib/dmpd/lease-hook" in router.documented("dnsmasq.md", "dmpctl local setup-dnsmasq")
    assert router.run("dnsmasq", "--test") == "dnsmasq: syntax check OK.\n"
    assert "dhcp-script=/usr/lib/dmpd/lease-hook\n" in drop_in.read_text()
    router.run("dmpctl", "local", "reload")
    router.until(lambda: vendor_class_by_the_hook(life, "dut-1") == "tv-os", "what only the script tells")
    router.run("dmpctl", "local", "setup-dnsmasq", "--undo")
    assert not drop_in.exists()
    router.run("dmpctl", "local", "reload")


def vendor_class_by_the_hook(life: Life, name: str) -> str | None:
    """What is known of a device's, after the hook was run as dnsmasq runs it at a lease."""
    if (device := life.devices().get(name)) is None:
        return None
    interface = device["record"]["interfaces"][0]
    lease = ("add", interface["mac"], interface["ip4"], name)
    life.router.run("env", "DNSMASQ_VENDOR_CLASS=tv-os", "/usr/lib/dmpd/lease-hook", *lease)
    return interface.get("vendor_class")


def metrics_over_its_socket(life: Life) -> None:
    life.router.apt("install", "curl")
    said = life.router.documented("operations.md", "curl --unix-socket")
    assert "\ndmpd_local_registry_connected_raes 1.0\n" in said


def certificate_renewed(life: Life) -> None:
    router, tls = life.router, life.router.root / "etc/dmpd/tls"
    before = {name: (tls / name).read_bytes() for name in ("client.key", "client.crt")}
    router.documented("rae.md", "dmpctl enroll --renew SERIAL", SERIAL=RAE)
    assert {name: (tls / name).read_bytes() for name in before} == before
    (router.root / "root/client.crt").write_bytes(sign(tls / "client.csr", life.cloud.authority))
    assert router.run("dmpctl", "enroll", "--certificate", "/root/client.crt").splitlines()[-1] == "ready"
    assert not [name for name, content in before.items() if (tls / name).read_bytes() == content]
    owners(life)


def upgraded_in_flight(life: Life, deb: Path) -> None:
    """Rows wait when the upgrade begins, a device comes while it goes on, and the drain ends with rows on the disk.

    What came of them until then is forgotten, so that what arrives is what the new version had of the old one: its very
    store, not one begun anew from what identity.json and the LAN know, which would have another epoch and lower revs.
    """
    router, cloud = life.router, life.cloud
    sessions = {name: one["session"] for name, one in life.devices().items()}
    taken = len(cloud.bridge.taken)
    cloud.bridge.stores = False
    life.plug_in(3)
    life.until_devices(3)
    router.until(lambda: life.status().get("outbox_rows", 0) > 0, "rows wait")
    epoch, revs = life.status()["epoch"], {name: one["rev"] for name, one in life.devices().items()}
    said: list[str] = []
    upgrade = threading.Thread(target=lambda: said.append(router.install(deb)))
    upgrade.start()
    try:
        router.until(lambda: "draining" in cloud.states(taken), "draining")
        life.plug_in(4)
        router.until(
            lambda: "disconnected" in cloud.states(taken), "the old one has ended, though nothing became durable"
        )
    finally:
        cloud.bridge.stores = True
        upgrade.join(120)
    assert said, "the upgrade failed"
    life.until_ready()
    assert router.run("dpkg-query", "-W", "-f=${Version}", NAME) == version_of(deb)
    life.until_devices(1, 2, 3, 4)
    life.check_nothing_lost()
    after = life.devices()
    assert {name: one["session"] for name, one in after.items() if name in sessions} == sessions
    assert life.status()["epoch"] == epoch, "the store is the old one's"
    assert not [name for name, rev in revs.items() if after[name]["rev"] < rev]


def stopped_stays_stopped(life: Life, deb: Path) -> None:
    router = life.router
    assert "stopped" in router.supervisorctl("stop", "local-registry")
    router.install(deb)
    assert router.state() == "STOPPED"
    link = router.root / "etc/supervisor/conf.d/dmpd-local-registry.conf"
    target = link.readlink()
    link.unlink()
    router.supervisorctl("update")
    router.run("dpkg-reconfigure", NAME)
    assert (link.is_symlink(), router.state()) == (False, ""), "what the administrator took away stays away"
    link.symlink_to(target)
    router.supervisorctl("update")
    life.until_ready()


def downgrade_is_refused(life: Life, deb: Path, newest: Path) -> None:
    """And the daemon, drained for the upgrade that did not come, runs again."""
    router = life.router
    said = router.install(deb, code=100)
    assert f"{version_of(newest)} is installed and may have brought its database up to date" in said
    assert (
        router.run("dpkg-query", "-W", "-f=${Status} ${Version}", NAME) == f"install ok installed {version_of(newest)}"
    )
    life.until_ready()


def removed_and_installed_again(life: Life, deb: Path) -> None:
    router = life.router
    sessions = {name: one["session"] for name, one in life.devices().items()}
    router.apt("remove", NAME)
    assert router.state() == ""
    assert "ended" not in router.supervisorctl("avail")
    assert list((router.root / "etc/supervisor/conf.d").iterdir()) == []
    assert not (router.root / "usr/lib/dmpd").exists()
    assert (router.root / "var/lib/dmpd/registry.db").exists()
    router.install(deb)
    life.until_ready()
    life.until_devices(*(int(name.removeprefix("dut-")) for name in sessions))
    assert {name: one["session"] for name, one in life.devices().items()} == sessions


def purged(life: Life) -> None:
    router = life.router
    router.apt("purge", NAME)
    assert router.state() == ""
    assert router.supervisorctl("avail").strip() == ""
    left = router.run("find", "/", "-xdev", "-iname", "*dmpd*", "-not", "-path", "/root/*", "-not", "-path", "/proc/*")
    assert left.split() == []
    assert router.run("find", "/run", "-iname", "*dmpd*").split() == []
    assert router.run("getent", "passwd", "dmpd").startswith("dmpd:")
