"""Wires the lab to what the other programs offer: their queries, their status, their comparison.

Programs do not import each other, so the lab's room only names what it needs; here stands who gives it.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw

from dmpd.cli.request_sender import RequestSender, new_request
from dmpd.cli.this_lab import stores_of
from dmpd.cli.verification import verify
from dmpd.cloud_registry.figures import Figures
from dmpd.lab import lan_parts
from dmpd.lab.daemon_config import bridge_health, cloud_registry_health, simulate_health
from dmpd.lab.demo import Verdict
from dmpd.lab.observation import DatabaseTotals, EdgeTotals, LanDevice
from dmpd.lab.observer import KafkaOffsets, Observer, Probes
from dmpd.lab.platform import DATABASE, Lab
from dmpd.lab.server import ServerError
from dmpd.lab.status import daemon_status
from dmpd.lab.tally import KafkaTally
from dmpd.local_registry.store import StoreError
from dmpd.runtime import kafka_admin
from dmpd.runtime.database import DatabaseUnreachableError, connect
from dmpd.runtime.errors import UnavailableError
from dmpd.runtime.kafka import KafkaUnreachableError
from dmpd.runtime.kafka_reader import TopicReader
from dmpd.runtime.settings import DatabaseSettings, KafkaSettings, TopicSettings
from dmpd.stream.settings import StreamSettings

_T = TypeVar("_T")

_VERIFY_WAIT_S: Final = 30.0
_REQUESTER: Final = "op-lab"
_REQUEST_LIFETIME_S: Final = 30
_DIFFERENCES_SAID_MAX: Final = 20


def make_observer(lab: Lab) -> Observer:
    """An observer of this lab, not yet started."""
    kafka = KafkaSettings(bootstrap_servers=lab.kafka.bootstrap_servers)
    folder = lab.folder
    probes = Probes(
        edge=lambda: _told(lambda: edge_totals(_edge_statuses(lab))),
        offsets=lambda: _offsets(kafka),
        bridge_in_flight=lambda: _told(lambda: int(_required(bridge_health(folder))["in_flight_messages"])),
        ring_bytes=lambda: _told(lambda: ring_bytes(_required(cloud_registry_health(folder)))),
        database=LabDatabase(lab),
    )
    return Observer(probes, KafkaTally(TopicReader(kafka, TopicSettings().info, start="beginning")))


def edge_totals(statuses: Sequence[Mapping[str, Any]]) -> EdgeTotals:
    """Sum of what the RAEs' control sockets say; a simulation speaks for all its RAEs."""
    raes = [rae for status in statuses for rae in status.get("raes", {"": status}).values()]
    return EdgeTotals(
        committed=sum(int(rae["committed"]) for rae in raes),
        outbox_rows=sum(int(rae["outbox_rows"]) for rae in raes),
        connected=sum(bool(rae["connected"]) for rae in raes),
        raes=len(raes),
    )


def ring_bytes(status: Mapping[str, Any]) -> int:
    """Bytes that wait in the rings of the Cloud Registry's workers."""
    return sum(int(partition["ring_used_bytes"]) for partition in status["partitions"].values())


def _edge_statuses(lab: Lab) -> list[Mapping[str, Any]]:
    binds = [simulate_health(lab.folder)] if lab.info.raes else []
    if lab.info.lan:
        binds.append(lan_parts.LanParts(lab.folder).health)
    return [_required(bind) for bind in binds]


def _told(ask: Callable[[], _T]) -> _T:
    """What ``ask`` reads from a status; a daemon that starts or ends leaves things out, which is no answer."""
    try:
        return ask()
    except KeyError as error:
        raise ConnectionError(f"its status says nothing of {error}") from error


def _required(bind: str) -> Mapping[str, Any]:
    status = daemon_status(bind)
    if not status:
        raise ConnectionError(f"{bind} does not answer")
    return status


def _offsets(kafka: KafkaSettings) -> KafkaOffsets:
    """Where the topic ends and what the group committed at least (the lag is asked after the ends)."""
    topic = TopicSettings().info
    try:
        ends = kafka_admin.list_end_offsets(kafka, topic)
        lag = kafka_admin.group_lag(kafka, StreamSettings().group, topic)
    except KafkaUnreachableError as error:
        raise ConnectionError(str(error)) from error
    return KafkaOffsets(ends, {number: end - lag[number] for number, end in ends.items()})


class LabDatabase:
    """The database as the lab's observer sees it; one connection, for one thread."""

    def __init__(self, lab: Lab) -> None:
        settings = DatabaseSettings(conninfo=lab.postgresql.conninfo(DATABASE), connect_timeout_s=2)
        self._figures = Figures(settings, application="dmpd-lab")
        self._duts = lab.info.duts

    def totals(self) -> DatabaseTotals:
        found = self._figures.totals()
        return DatabaseTotals(rows=found.rows, revs=found.revs, by_state=dict(found.by_state), stale=found.stale)

    def delays_ms(self) -> Sequence[float]:
        return self._figures.delays_ms()

    def lan_devices(self) -> Sequence[LanDevice]:
        if not self._duts:
            return []
        found = [LanDevice(**one._asdict()) for one in self._figures.named_devices(lan_parts.RAE)]
        return sorted(found, key=lambda one: (len(one.hostname), one.hostname))


class LabJudge:
    """What the demo asks: the LAN's devices in the database, and in the end whether every record is right."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._database = LabDatabase(lab)

    def lan_devices(self) -> Sequence[LanDevice]:
        return self._database.lan_devices()

    def request(self, session: str, verb: str, **args: str) -> str:
        kafka = KafkaSettings(bootstrap_servers=self._lab.kafka.bootstrap_servers)
        said = {name: Raw(msgspec.json.encode(value)) for name, value in args.items()}
        try:
            with contextlib.closing(RequestSender(kafka, TopicSettings(), _REQUESTER)) as sender:
                asked = new_request(lan_parts.RAE, session, verb, said)
                return sender.ask(asked, lifetime_s=_REQUEST_LIFETIME_S).outcome
        except UnavailableError as error:
            raise ConnectionError(str(error)) from error

    def verify(self) -> Verdict:
        """Every store against the database; what is on its way is given half a minute."""
        settings = DatabaseSettings(conninfo=self._lab.postgresql.conninfo(DATABASE))
        try:
            with contextlib.closing(connect(settings, application="dmpd-lab")) as connection:
                connection.autocommit = True
                found = verify(stores_of(self._lab.folder), connection, wait_s=_VERIFY_WAIT_S, complete=True)
        except (DatabaseUnreachableError, StoreError) as error:
            raise ServerError(f"verify: {error}") from error
        return Verdict(
            committed=found.committed,
            compared=found.compared,
            missing=found.missing,
            wrong=found.wrong + found.phantoms + found.unsettled,
            said=[
                f"{each.rae} {each.session} {each.kind} {each.field}: store {each.edge:.60}, database {each.cloud:.60}"
                for each in found.differences[:_DIFFERENCES_SAID_MAX]
            ],
        )
