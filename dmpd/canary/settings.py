"""Section ``canary`` of the cloud's configuration."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from dmpd.runtime.settings import Bind, PositiveSeconds

Ramp = Literal["step", "linear", "herd"]
Profile = Literal["steady", "waves", "burst"]
Count = Annotated[int, Meta(ge=0, le=1_000_000_000)]


class ThresholdSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a run must keep to; beyond any of these the verdict is ``fail``, whatever else was well."""

    lost_max: Count = 0
    """Messages that were promised to be kept (``durable``, or a PUBACK on a connection that held) and did not come."""
    wrong_max: Count = 0
    """Records altered or never sent, and rows that differ from what was sent."""
    reordered_max: Count = 0
    """Records whose first occurrence came behind a later one of their topic."""
    late_max: Count = 0
    """Messages that took longer than ``late_after_s`` to Kafka or to their row."""
    late_after_s: PositiveSeconds = 30.0
    """From publishing."""
    connect_success_min: Annotated[float, Meta(ge=0, le=1)] = 1.0
    """Share of the clients that must get in within ``connect_timeout_s``."""
    disconnects_max: Count = 0
    """Connections that ended before their client let them."""
    end_to_end_p99_max_s: PositiveSeconds = 15.0
    """From publishing to the row, of the crowd's messages."""
    lag_zero_max_s: PositiveSeconds = 10.0
    """From the flash's end until the Cloud Registry has committed all that was in Kafka then."""
    control_during_p99_max_s: PositiveSeconds = 1.0
    """From publishing to the row, of the control group while the crowd is there."""
    control_herd_p99_max_s: PositiveSeconds = 10.0
    """The same for a crowd that comes all at once (``herd``): all wait for its handshakes in the broker's thread."""
    control_after_ratio_max: Annotated[float, Meta(ge=1, le=1000)] = 2.0
    """The control group's p99 after the crowd, over that before it."""
    control_floor_s: PositiveSeconds = 0.25
    """The control group's p99 after the crowd is never too long up to this: a ratio of small numbers means nothing."""
    requests_unanswered_max: Count = 0
    """Requests without a final response."""
    baseline_ratio_max: Annotated[float, Meta(ge=1, le=1000)] = 3.0
    """A p99 above this many times its median of the last runs is ``degraded``."""
    baseline_floor_s: PositiveSeconds = 0.25
    """A p99 up to this is never called slow against the last runs."""
    baseline_runs: Annotated[int, Meta(ge=1, le=1000)] = 20
    """Runs of the same size, ramp and profile that the baseline looks at."""
    baseline_runs_min: Annotated[int, Meta(ge=1, le=1000)] = 5
    """With fewer there is no baseline."""

    def __post_init__(self) -> None:
        if self.late_after_s < self.end_to_end_p99_max_s:
            raise ValueError(
                f"late_after_s: expected at least end_to_end_p99_max_s ({self.end_to_end_p99_max_s:g}), got"
                f" {self.late_after_s:g}: a message would be late that is still in time"
            )
        if self.baseline_runs_min > self.baseline_runs:
            raise ValueError(
                f"baseline_runs_min: expected at most baseline_runs ({self.baseline_runs}), got"
                f" {self.baseline_runs_min}: there would never be a baseline"
            )


class CanarySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The flash crowd, when it comes, and what is expected of the platform."""

    health_bind: Bind = "127.0.0.1:9104"
    """Of health and metrics of the daemon."""
    certificates_dir: str = "/etc/dmpd/tls/canary"
    """Folder with ``canary-0001.crt``, ``canary-0001.key`` and so on; ``mqtt.ca_file`` is the CA."""
    service_cert_file: str = "/etc/dmpd/tls/svc-canary.crt"
    """Certificate of ``svc-canary``, which reads the broker's ``$SYS``."""
    service_key_file: str = "/etc/dmpd/tls/svc-canary.key"
    """Its private key."""
    report_dir: str | None = None
    """Folder for each run's report as JSON, beside the table ``canary_run``; absent = the table alone."""
    interval_s: Annotated[float, Meta(ge=60, le=86_400)] = 10_800.0
    """From one run to the next."""
    jitter: Annotated[float, Meta(ge=0, le=0.5)] = 0.1
    """Each interval is longer or shorter by up to this share of it."""
    alarm_s: Annotated[float, Meta(ge=60, le=604_800)] = 12_600.0
    """Without a run that ended for so long, readiness and ``dmpctl canary status`` raise an alarm."""
    history_days: Annotated[int, Meta(ge=1, le=3650)] = 90
    """Runs are kept for so long."""
    clients: Annotated[int, Meta(ge=1, le=900_000)] = 3000
    """The crowd; the control group comes on top."""
    control_clients: Annotated[int, Meta(ge=1, le=1000)] = 20
    """The control group: one message a second each, from before the ramp to the verdict."""
    processes: Annotated[int, Meta(ge=0, le=256)] = 0
    """Processes for the crowd; 0 = as many as the machine has cores."""
    ramp: Ramp = "linear"
    """How the crowd comes: evenly, in four steps, or all at once."""
    ramp_s: PositiveSeconds = 30.0
    """For so long it comes (``linear``, ``step``). A handshake costs 2 to 3 ms of processor time at both ends."""
    profile: Profile = "steady"
    """How it sends: evenly over ``flash_s``, in three waves, or as fast as it can."""
    flash_s: PositiveSeconds = 30.0
    """The flash lasts so long (``steady``, ``waves``)."""
    changes: Annotated[int, Meta(ge=1, le=10_000)] = 8
    """Changes of each client in the flash; five further messages tell of its status, device and end."""
    requests: Annotated[int, Meta(ge=0, le=100_000)] = 100
    """Requests to the crowd through Kafka, spread over the flash."""
    probes: Annotated[int, Meta(ge=0, le=100_000)] = 50
    """Clients that try what the broker must refuse: to publish and to read what is another's."""
    before_s: PositiveSeconds = 8.0
    """The control group is watched for so long before the ramp."""
    after_s: PositiveSeconds = 8.0
    """And for so long after the drain."""
    connect_timeout_s: PositiveSeconds = 40.0
    """For TCP, TLS and CONNACK of one client, which begins anew when the broker's queue of new connections drops it."""
    drain_timeout_s: PositiveSeconds = 90.0
    """For so long after the flash its messages are waited for; what is missing then is lost."""
    time_box_s: PositiveSeconds = 300.0
    """A run that takes longer is given up: ``unknown``."""
    thresholds: ThresholdSettings = ThresholdSettings()

    def __post_init__(self) -> None:
        limits = self.thresholds
        longest_s = max(limits.late_after_s, limits.lag_zero_max_s)
        if self.drain_timeout_s < longest_s:
            raise ValueError(
                "drain_timeout_s: expected at least thresholds.late_after_s and lag_zero_max_s"
                f" ({longest_s:g}), got {self.drain_timeout_s:g}: a late message would be called lost"
            )
        least_s = self.before_s + self.ramp_s + self.flash_s + self.drain_timeout_s + self.after_s
        if self.time_box_s < least_s:
            raise ValueError(
                "time_box_s: expected at least before_s + ramp_s + flash_s + drain_timeout_s + after_s"
                f" ({least_s:g}), got {self.time_box_s:g}: no run could end in it"
            )
        next_s = self.interval_s * (1 + self.jitter) + self.time_box_s
        if self.alarm_s < next_s:
            raise ValueError(
                f"alarm_s: expected at least interval_s x (1 + jitter) + time_box_s ({next_s:g}), got"
                f" {self.alarm_s:g}: the alarm would come before the next run can have ended"
            )
