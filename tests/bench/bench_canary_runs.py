"""Whole runs of the canary over a lab, one after the other: verdicts, how the control group and real RAEs fare, memory.

Five runs of 3,000 clients at the default thresholds, linear and herd in turn, everything on this machine; 15 minutes.
``--clients``, ``--runs``, ``--ramps`` for less. Wants the machine for itself: the canary sees whoever else is at work.
"""

import argparse
import json
import os
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from dmpd.lab.canary import CONTROL_CLIENTS
from dmpd.lab.certificates import CertificateAuthority
from tests.bench.report import figure, publish, worst
from tests.support.platform import BIN, LabUnderTest, running_lab

DAEMONS = ("bridge", "cloud-registry", "access", "mosquitto")
REST_S = 5.0
ANONYMOUS = re.compile(r"^RssAnon:\s+(\d+) kB", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=3000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--ramps", default="linear,herd")
    options = parser.parse_args()
    ramps = options.ramps.split(",")
    reports, memory = [], []
    with running_lab("--no-lan") as lab:
        authority = CertificateAuthority(lab.folder.tls)
        with ThreadPoolExecutor() as pool:
            list(
                pool.map(authority.client, [f"canary-{n:04}" for n in range(1, options.clients + CONTROL_CLIENTS + 1)])
            )
        for turn in range(options.runs):
            reports.append(one_run(lab, options.clients, ramps[turn % len(ramps)]))
            time.sleep(REST_S)
            memory.append({name: private_mib(lab, name) for name in DAEMONS})
            print(line(reports[-1]), "memory, MiB:", memory[-1], f"load {os.getloadavg()[0]:.1f}", flush=True)
    publish("canary_runs", [*verdicts(reports), *times(reports), *growth(memory)])


def one_run(lab: LabUnderTest, clients: int, ramp: str) -> dict:
    command = [BIN / "dmpd", "canary", "--once", "--clients", str(clients), "--ramp", ramp, "--json"]
    done = subprocess.run([*command, "--config", lab.folder.config], capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


def line(report: dict) -> str:
    """One run for people; the reasons tell what was not well."""
    facts = report["facts"]
    reasons = "; ".join(f"{one['name']}: {one['sentence']}" for one in report["reasons"])
    control = {when: one.get("p99") for when, one in facts["control"].items()}
    return (
        f"{report['ramp']} {report['clients']} clients: {report['verdict']} in {report['took_s']} s ({reasons});"
        f" {facts['sent']} messages, lag 0 after {facts['lag_zero_s']} s, control p99 {control},"
        f" {facts['syn_retries']} SYN retries, {facts['connects_anew']} begun anew\n"
        f"  phases {report['phases']}\n  times { ({name: one.get('p99') for name, one in facts['times'].items()}) }\n "
    )


def verdicts(reports: list[dict]) -> list:
    return [
        figure("passed", "share", [float(one["verdict"] == "pass") for one in reports], bar="1"),
        *(
            worst(name, "", [float(one["facts"][name]["count"]) for one in reports], bar="0")
            for name in ("lost", "wrong", "reordered", "late")
        ),
        figure("messages", "", [float(one["facts"]["sent"]) for one in reports], bar=">= 30,000"),
        worst("run", "s", [one["took_s"] for one in reports], bar="<= 300"),
    ]


def times(reports: list[dict]) -> list:
    facts = [one["facts"] for one in reports]
    lags_s = [one["lag_zero_s"] for one in facts if one["lag_zero_s"] is not None]
    found = [worst("lag_zero", "s", lags_s, bar="<= 10")] if lags_s else []
    for group, bar in (("control", {"during": "<= 1"}), ("raes", {})):
        for when in ("before", "during", "after"):
            p99s = [one[group][when]["p99"] for one in facts if one[group].get(when, {}).get("p99") is not None]
            if p99s:
                found.append(figure(f"{group}_{when}_p99", "s", p99s, bar=bar.get(when)))
    return [
        *found,
        figure("end_to_end_p99", "s", [one["times"]["row"]["p99"] for one in facts], bar="<= 15"),
        figure("connects_per_s", "1/s", [one["connects_per_s"] for one in facts]),
        figure("messages_per_s", "1/s", [one["messages_per_s"] for one in facts]),
    ]


def growth(memory: list[dict[str, float]]) -> list:
    """In the second half of the runs, each after the other: what was remembered of the first ones is no growth."""
    later = memory[len(memory) // 2 :]
    return [
        figure(
            f"memory_{name}",
            "MiB a run",
            [after[name] - before[name] for before, after in pairwise(later)] or [0.0],
            bar="<= 1",
        )
        for name in DAEMONS
    ]


def private_mib(lab: LabUnderTest, part: str) -> float:
    """Of a part of the lab with all its children: what is theirs alone. Rings are bounded and fill as they go on."""
    pids = [next(one.pid for one in lab.supervisor.states() if one.name == part)]
    for pid in pids:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    kib = sum(int(ANONYMOUS.search(Path(f"/proc/{pid}/status").read_text())[1]) for pid in pids)
    return round(kib / 1024, 1)


if __name__ == "__main__":
    main()
