"""The real sources on a real LAN: DHCP clients, a bridge, cables pulled, and a kernel that talks too fast."""

import json
import time

import pytest

from dmpd.local_registry.source import LanDown, LanUp
from dmpd.local_registry.sources import metrics
from dmpd.local_registry.sources.lease_socket import LeaseSocket
from dmpd.local_registry.sources.leases import LeaseSource
from dmpd.local_registry.sources.neighbours import NeighbourSource
from tests.support.lan import Recorder, running_lan
from tests.support.platform import until

pytestmark = pytest.mark.namespaces

DOWN, UP = LanDown("neighbours"), LanUp("neighbours")


def recorder_of(lan, **settings) -> Recorder:
    def make():
        return [LeaseSource(lan.lease_file), NeighbourSource("br-lan", **settings)]

    return Recorder(make, namespace=lan.lab.router_namespace)


@pytest.fixture
def lan():
    with running_lan() as lan:
        lan.start_dnsmasq()
        yield lan


def quicken(lan) -> None:
    """Let the kernel be unsure after some 3 s and ask a second later, not after 30 and 5.

    Much shorter, and its own question would count as use, which makes it ask again, for ever.
    """
    lan.router("sysctl", "-qw", "net.ipv4.neigh.br-lan.base_reachable_time_ms=3000")
    lan.router("sysctl", "-qw", "net.ipv4.neigh.br-lan.delay_first_probe_time=1")


def state_of(lan, ip: str) -> list[str]:
    found = json.loads(lan.router("ip", "-j", "neigh", "show", ip, "dev", "br-lan"))
    return found[0]["state"] if found else []


def test_three_devices_lease_and_are_told_with_all_that_is_known(lan):
    with recorder_of(lan) as recorder:
        for dut in lan.lab.duts():
            lan.start_dut(dut)
        for dut in lan.lab.duts():
            _at_s, lease = recorder.wait_for(source="leases", mac=dut.mac, hostname=dut.hostname)
            assert lease.ip is not None
            assert lease.ip.startswith("10.77.")
            recorder.wait_for(source="neighbours", mac=dut.mac, ip=lease.ip, port=dut.port, reach="up")
    macs = {one.mac for one in recorder.evidence()}
    assert macs == {dut.mac for dut in lan.lab.duts()}, "the router's own MACs are no devices"


def test_a_cable_is_seen_at_once_each_way(lan):
    dut = lan.lab.dut("d2")
    with recorder_of(lan) as recorder:
        lan.start_dut(dut)
        recorder.wait_for(source="neighbours", mac=dut.mac, reach="up")
        for _turn in range(3):
            since, pulled_s = recorder.mark(), time.monotonic()
            lan.lab.unplug(dut.name)
            gone_s, _gone = recorder.wait_for(since=since, mac=dut.mac, reach="down", gone=True)
            assert gone_s - pulled_s < 5
            since, plugged_s = recorder.mark(), time.monotonic()
            lan.lab.plug(dut.name)
            back_s, _back = recorder.wait_for(since=since, mac=dut.mac, reach="up")
            assert back_s - plugged_s < 5


def test_a_device_plugged_in_again_renews_its_lease(lan):
    dut = lan.lab.dut("d1")
    with recorder_of(lan) as recorder:
        lan.start_dut(dut)
        recorder.wait_for(source="leases", mac=dut.mac)
        leased_s = int(time.time())
        until(lambda: int(time.time()) > leased_s, "the next second: leases count in seconds")
        lan.lab.unplug(dut.name)
        since = recorder.mark()
        lan.lab.plug(dut.name)
        recorder.wait_for(since=since, source="leases", mac=dut.mac, reach="up")


def test_a_silent_death_is_found_by_poking_and_so_is_the_return(lan):
    dut = lan.lab.dut("d1")
    quicken(lan)
    with recorder_of(lan) as recorder:
        lan.start_dut(dut)
        _at_s, seen = recorder.wait_for(source="neighbours", mac=dut.mac, reach="up")
        neighbours = recorder.sources[1]

        def silence(*, on: bool) -> None:
            lan.in_dut(dut, "ip", "link", "set", "eth0", "arp", "off" if on else "on")

        until(lambda: "STALE" in state_of(lan, seen.ip), "the kernel becomes unsure")
        silence(on=True)
        since = recorder.mark()
        recorder.run(neighbours.poke(ip=seen.ip, mac=dut.mac))
        recorder.wait_for(since=since, mac=dut.mac, reach="down", gone=False, timeout_s=8)
        since = recorder.mark()
        silence(on=False)
        recorder.run(neighbours.poke(ip=seen.ip, mac=dut.mac))
        recorder.wait_for(since=since, mac=dut.mac, reach="up", source="neighbours", timeout_s=8)


def test_a_restart_of_dnsmasq_takes_no_device_away(lan):
    dut = lan.lab.dut("d1")
    with recorder_of(lan) as recorder:
        lan.start_dut(dut)
        recorder.wait_for(source="leases", mac=dut.mac)
        recorder.wait_for(source="neighbours", mac=dut.mac, reach="up")
        lan.stop("dnsmasq")
        lan.start_dnsmasq()
        since = recorder.mark()
        other = lan.lab.dut("d3")
        lan.start_dut(other)
        recorder.wait_for(since=since, source="leases", mac=other.mac, reach="up")
        assert recorder.evidence(reach="down") == []
        assert recorder.evidence(gone=True) == []


def test_a_released_lease_is_a_farewell(lan):
    dut = lan.lab.dut("d1")
    with recorder_of(lan) as recorder:
        for one in lan.lab.duts():
            lan.start_dut(one)
            recorder.wait_for(source="leases", mac=one.mac)
        lan.release(dut)
        recorder.wait_for(source="leases", mac=dut.mac, gone=True, reach="down")


def test_a_socket_whose_file_was_deleted_hears_again():
    with running_lan() as lan:
        lan.start_dnsmasq(hooked=True)
        first, second = lan.lab.dut("d1"), lan.lab.dut("d2")

        def make():
            return [LeaseSource(lan.lease_file, socket=LeaseSocket(lan.lease_socket))]

        with Recorder(make, namespace=lan.lab.router_namespace) as recorder:
            lan.start_dut(first)
            recorder.wait_for(mac=first.mac, vendor_class="dmpd-lab-d1")
            lan.lease_socket.unlink()
            until(lan.lease_socket.exists, "made again")
            lan.start_dut(second)
            recorder.wait_for(mac=second.mac, vendor_class="dmpd-lab-d2")
            lan.release(second)
            recorder.wait_for(mac=second.mac, gone=True)
        assert [one.mac for one in recorder.evidence(arrived=True)] == [first.mac, second.mac]
        assert [one.mac for one in recorder.evidence(gone=True)] == [second.mac]


def test_a_hook_that_finds_nobody_costs_no_lease_and_no_word_of_dnsmasq():
    with running_lan() as lan:
        lan.start_dnsmasq(hooked=True)
        with recorder_of(lan) as recorder:
            for dut in lan.lab.duts():
                lan.start_dut(dut)
            for dut in lan.lab.duts():
                _at_s, lease = recorder.wait_for(source="leases", mac=dut.mac, reach="up")
                assert (lease.hostname, lease.vendor_class) == (dut.hostname, None)
        lan.stop("dnsmasq")  # it waits for its script
        assert "script" not in lan.log("dnsmasq")
        assert not lan.lease_socket.exists()


def test_an_interface_that_comes_later_is_a_lan_that_comes_up(lan):
    def make():
        return [NeighbourSource("br-late")]

    with Recorder(make, namespace=lan.lab.router_namespace) as recorder:
        recorder.wait_for_signal(DOWN)
        lan.router("ip", "link", "add", "br-late", "type", "bridge")
        lan.router("ip", "link", "add", "late1", "type", "veth", "peer", "name", "late2")
        lan.router("ip", "link", "set", "late1", "master", "br-late")
        for link in ("br-late", "late1", "late2"):
            lan.router("ip", "link", "set", link, "up")
        recorder.wait_for_signal(UP)
        since = recorder.mark()
        lan.router("ip", "link", "delete", "br-late")
        recorder.wait_for_signal(DOWN, since=since)


def test_lost_kernel_events_end_in_a_resync_that_knows_everybody(lan):
    """240 new neighbours while the event loop is stuck and the kernel's buffer is tiny: most events are lost."""
    overflows = metrics.feed_overflows._value.get
    before = overflows()
    commands = [f"neigh add 10.77.3.{n} lladdr 02:00:00:88:00:{n:02x} nud reachable dev br-lan" for n in range(1, 241)]
    batch = lan.lab.state_dir / "flood"
    batch.write_text("\n".join(commands) + "\n")
    with recorder_of(lan, receive_buffer_bytes=4096) as recorder:
        recorder.run(recorder.sources[1].dump())

        def stuck() -> None:
            lan.router("ip", "-batch", str(batch))

        recorder.call(stuck)
        for n in range(1, 241):
            recorder.wait_for(source="neighbours", mac=f"02:00:00:88:00:{n:02x}", ip=f"10.77.3.{n}")
    assert overflows() > before, "nothing was lost, so nothing was tested"
