"""``dmpd lab up --once``: the demo without a person. It waits, measures, pulls a cable, kills, and judges.

Every wait is for a condition with a deadline; what is not met in time is a failure with its name, and the rest goes on,
so that one run tells everything.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec import Struct

from dmpd.lab import lan_parts
from dmpd.lab.demo_lan import LanDemo
from dmpd.lab.duts import control
from dmpd.lab.kill import WORKER, kill
from dmpd.lab.observation import LanDevice, Observation, percentile
from dmpd.lab.observer import Observer
from dmpd.lab.patience import Patience
from dmpd.lab.platform import Lab
from dmpd.lab.report import Report
from dmpd.lab.server import ServerError

KILLS: Final = ("mosquitto", "bridge", "cloud-registry", WORKER, "kafka")
FIRST_ROW_MAX_S: Final = 40.0
P50_MAX_MS: Final = 100.0
P99_MAX_MS: Final = 1000.0
_ROWS_S: Final = 90.0
_QUIET_S: Final = 20.0
_RECOVERY_S: Final = 60.0
_SETTLE_S: Final = 60.0


class Verdict(Struct, frozen=True):
    """What ``verify`` found: records of the RAEs' stores that the database lacks, and those that differ."""

    committed: int
    """Changes committed in the stores, since ever."""
    compared: int
    missing: int
    wrong: int
    said: Sequence[str] = ()


class Judge(Protocol):
    """What the demo asks outside the lab's own parts; the command wires it."""

    def lan_devices(self) -> Sequence[LanDevice]:
        """The devices of the LAN's RAE in the database. Raises ``OSError``: no answer."""

    def request(self, session: str, verb: str, **args: str) -> str:
        """Ask the LAN's RAE through Kafka for something of a device session; its outcome. Raises ``OSError``."""

    def verify(self) -> Verdict:
        """Compare every RAE's store with the database, record by record. Nothing may change meanwhile."""


class Demo:
    """One run over a lab that is up. ``started_s`` is when its start began (monotonic)."""

    def __init__(
        self,
        lab: Lab,
        observer: Observer,
        judge: Judge,
        *,
        say: Callable[[str], None],
        stop_requested: Callable[[], bool],
        started_s: float,
    ) -> None:
        self._lab = lab
        self._observer = observer
        self._judge = judge
        self._say = say
        self._started_s = started_s
        self.report = Report(raes=lab.info.raes, devices=lab.info.raes * lab.info.devices)
        self._patience = Patience(self.report, say=say, stop_requested=stop_requested)
        self._lan: LanDemo | None = None
        if lab.info.lan:
            self._lan = LanDemo(
                lan_parts.lan_of(lab.folder),
                ask=lambda command, dut: control.ask(lab.folder.duts_socket, command, dut),
                devices=judge.lan_devices,
                request=judge.request,
                patience=self._patience,
            )

    def run(self) -> Report:
        """Blocks for two to five minutes.

        Raises:
            LabInterruptedError: Somebody asked the lab to end.
        """
        self._lab.start_duts()
        if self._lan is not None:
            self._lan.join()
        self._rows()
        if self._lan is not None:
            self._lan.all_online()
        self._quiet()
        if self._lan is not None:
            self._lan.cable()
            self._lan.swaps()
            self._lan.sleep()
            self._lan.requests()
        for part in KILLS:
            self._kill(part)
        self._judge_all()
        return self.report

    def _rows(self) -> None:
        started_s = self._started_s
        expected = self.report.devices + (self._lab.info.duts if self._lan is not None else 0)
        took_s = self._patience.until("first row", lambda: self._rows_now() > 0, _ROWS_S, since_s=started_s)
        self._patience.judge("first row", took_s, FIRST_ROW_MAX_S, "s")
        self._patience.until("all rows", lambda: self._rows_now() >= expected, _ROWS_S, since_s=started_s)

    def _quiet(self) -> None:
        """The part without faults: what is measured here is change → row."""
        self._caught_up("everything so far in the database")
        self._observer.take_delays_ms()
        delays_ms: list[float] = []
        end_s = time.monotonic() + _QUIET_S
        while time.monotonic() < end_s:
            self._patience.pause()
            delays_ms += self._observer.take_delays_ms()
        middle, high = percentile(delays_ms, 0.5), percentile(delays_ms, 0.99)
        if middle is None or high is None:
            self.report.failures.append("no change became a row while nothing was broken")
            return
        self.report.p50_ms, self.report.p99_ms = round(middle, 1), round(high, 1)
        self._patience.judge("change → row, p50", middle, P50_MAX_MS, "ms")
        self._patience.judge("change → row, p99", high, P99_MAX_MS, "ms")
        self._say(f"change → row without faults: p50 {middle:.0f} ms, p99 {high:.0f} ms, {len(delays_ms)} rows")

    def _kill(self, part: str) -> None:
        try:
            pid = kill(self._lab.folder, part)
        except ServerError as error:
            self.report.failures.append(f"kill {part}: {error}")
            return
        self._say(f"kill -9 {part} (pid {pid})")
        self.report.kills += 1
        started_s = time.monotonic()
        if part != WORKER:  # whose return nobody but its parent sees; the rows tell
            self._patience.until(f"{part} killed, started again", lambda: self._runs_anew(part, pid), _RECOVERY_S)
        self._caught_up(f"{part} killed, all changes up to now in the database", since_s=started_s)

    def _runs_anew(self, part: str, killed_pid: int) -> bool:
        states = self._lab.supervisor.states()
        return any(state.name == part and state.pid not in (0, killed_pid) for state in states)

    def _judge_all(self) -> None:
        """End the RAEs, let everything arrive, compare."""
        if self._lan is not None:
            self._lan.all_online()
            self._lan.count_sessions()
        started_s = time.monotonic()
        for program in ("simulate", "local-registry-lan"):
            if program in self._lab.info.parts:
                self._lab.supervisor.stop(program)
        stopped_s = time.monotonic()
        self._patience.until(
            "RAEs drained, nothing waits in Kafka",
            lambda: self._seen_since(stopped_s) is not None and self._observer.latest.lag == 0,
            _SETTLE_S,
            since_s=started_s,
        )
        started_s = time.monotonic()
        verdict = self._judge.verify()
        self.report.timings.append((f"verify of {verdict.compared} records", time.monotonic() - started_s))
        self.report.changes = verdict.committed
        self.report.lost = max(verdict.missing, verdict.committed - self._revs())
        self.report.wrong = verdict.wrong
        if self.report.lost or self.report.wrong:
            self.report.failures.append(f"verify: {self.report.lost} lost, {self.report.wrong} wrong")
            for line in verdict.said:
                self._say(line)

    def _caught_up(self, what: str, *, since_s: float | None = None) -> None:
        """Wait until the database holds everything that the RAEs had committed when first seen from now on."""
        started_s = time.monotonic()
        committed: list[int] = []

        def holds() -> bool:
            seen = self._seen_since(started_s)
            if seen is not None and seen.edge is not None and not committed:
                committed.append(seen.edge.committed)
            return bool(committed) and self._revs() >= committed[0]

        self._patience.until(what, holds, _RECOVERY_S, since_s=since_s)

    def _seen_since(self, since_s: float) -> Observation | None:
        """The latest observation if its round began after ``since_s``."""
        seen = self._observer.latest
        return seen if seen.begun_s > since_s else None

    def _revs(self) -> int:
        database = self._observer.latest.database
        return database.revs if database is not None else 0

    def _rows_now(self) -> int:
        database = self._observer.latest.database
        return database.rows if database is not None else 0
