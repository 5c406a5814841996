"""The Cloud Registry beside other programs: same job, machine, Kafka and PostgreSQL. An hour; ``--short``: 5 min."""

import argparse
import random
from typing import Final

from tests.bench.cloud_registry import backlog, decoding
from tests.bench.cloud_registry.backlog import Filled, Run
from tests.bench.cloud_registry.contenders import PEERS, Contender, Dmpd
from tests.bench.cloud_registry.servers import Servers, running
from tests.bench.report import Figure, figure, publish

SESSIONS: Final = {"A": 20_000, "B": 200}


def backlogs(servers: Servers, letter: str, records: int, rounds: int, names: list[str]) -> list[Figure]:
    kinds: list[type[Contender]] = [Dmpd, *(PEERS[name] for name in names)]
    filled: dict[bool, Filled] = {}
    for kind in kinds:
        if (kind is Dmpd) not in filled:
            filled[kind is Dmpd] = backlog.fill(servers, kind, letter, records, SESSIONS[letter], 0.0)
    runs: list[Run] = []
    for _ in range(rounds):
        for kind in random.sample(kinds, len(kinds)):
            done = backlog.run(servers, kind, filled[kind is Dmpd], replay=kind is Dmpd)
            runs.append(done)
            print(f"{letter} {done}", flush=True)
            if done.replay:
                print(f"{letter} replay {done.replay}", flush=True)
    return _figures(letter, runs)


def _figures(letter: str, runs: list[Run]) -> list[Figure]:
    mine = [run for run in runs if run.name == Dmpd.name]
    others = {run.name: [each.per_s for each in runs if each.name == run.name] for run in runs if run.name != Dmpd.name}
    best = max(others.values(), key=lambda rates: sorted(rates)[len(rates) // 2], default=None)
    found = [figure(letter, "updates/s", [run.per_s for run in mine], reference=best, bar=">= 2x")]
    found += [figure(f"{letter}/{name}", "updates/s", rates) for name, rates in others.items()]
    for part in mine[0].cpu_us:
        found.append(figure(f"{letter}/cpu/{part}", "us per update", [run.cpu_us[part] for run in mine]))
    found.append(figure(f"{letter}/rows", "rows per update", [run.rows for run in mine]))
    found.append(figure(f"{letter}/wal", "B per update", [run.wal_bytes for run in mine]))
    found.append(figure(f"{letter}/commits", "commits/s", [run.commits_per_s for run in mine]))
    found.append(figure(f"{letter}/memory", "MiB", [run.pss_mib for run in mine]))
    found.append(figure(f"{letter}/wrong", "rows", [float(run.wrong) for run in mine], bar="0"))
    again = [run.replay for run in mine if run.replay]
    if again:
        name = "replay" if letter == "A" else f"replay-{letter}"
        rates = [run.per_s for run in again]
        found.append(figure(name, "updates/s", rates, reference=[run.per_s for run in mine], bar=">= 2x"))
        found.append(figure(f"{name}/wal", "B per update", [run.wal_bytes for run in again], bar="0"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="A,B,decode", help="figures, by comma")
    parser.add_argument("--short", action="store_true", help="fewer records and rounds: for trying, not for stating")
    parser.add_argument("--records", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--peers", default="plain,spring-batch,pekko", help="by comma; empty for none")
    options = parser.parse_args()
    chosen = options.only.split(",")
    names = [name for name in options.peers.split(",") if name]
    records = options.records or (100_000 if options.short else 500_000)
    rounds = options.rounds or (1 if options.short else 3)
    figures: list[Figure] = []
    if "decode" in chosen:
        figures += decoding.measure()
    if set(chosen) - {"decode"}:
        for name in names:
            PEERS[name].build()
        with running() as servers:
            for letter in ("A", "B"):
                if letter in chosen:
                    figures += backlogs(servers, letter, records, rounds, names)
    publish("cloud_registry", figures)


if __name__ == "__main__":
    main()
