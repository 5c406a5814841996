"""The Cloud Registry beside other programs: same job, machine, Kafka and PostgreSQL. An hour; ``--short``: 5 min."""

import argparse
import random
import signal
import sys
from collections.abc import Sequence
from typing import Final

from tests.bench.cloud_registry import backlog, decoding, live, live_figures
from tests.bench.cloud_registry.backlog import Filled, Run
from tests.bench.cloud_registry.contenders import PEERS, Contender, Dmpd, Dmpd50
from tests.bench.cloud_registry.live import Live
from tests.bench.cloud_registry.servers import Servers, running
from tests.bench.report import Figure, figure, publish, worst

PACERS: Final = ("parallel", "plain")
"""The fastest and the thriftiest rival at a steady pace."""
SESSIONS: Final = {"A": 20_000, "B": 200}

_WARM_S = 20.0


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
    found.append(worst(f"{letter}/wrong", "rows", [float(run.wrong) for run in mine], bar="0"))
    again = [run.replay for run in mine if run.replay]
    if again:
        name = "replay" if letter == "A" else f"replay-{letter}"
        rates = [run.per_s for run in again]
        found.append(figure(name, "updates/s", rates, reference=[run.per_s for run in mine], bar=">= 2x"))
        found.append(figure(f"{name}/wal", "B per update", [run.wal_bytes for run in again], bar="0"))
        found.append(worst(f"{name}/wrong", "rows", [float(run.wrong) for run in again], bar="0"))
    return found


def poison(servers: Servers, records: int, rounds: int) -> list[Figure]:
    """C, in turns with A of as many records."""
    filled = {share: backlog.fill(servers, Dmpd, "A", records, SESSIONS["A"], share) for share in (0.0, 0.001)}
    runs: dict[float, list[Run]] = {0.0: [], 0.001: []}
    for _ in range(rounds):
        for share in random.sample(sorted(filled), 2):
            runs[share].append(backlog.run(servers, Dmpd, filled[share]))
            print(f"{'C' if share else 'A'} {runs[share][-1]}", flush=True)
    bad = runs[0.001]
    return [
        figure("C", "updates/s", [one.per_s for one in bad], reference=[o.per_s for o in runs[0.0]], bar=">= 0.8x"),
        worst("C/unjust", "dead letters", [float(one.unjust) for one in bad], bar="0"),
        worst("C/wrong", "rows", [float(one.wrong) for one in bad], bar="0"),
    ]


def kill(servers: Servers, records: int, names: list[str]) -> list[Figure]:
    """G: each killed once in mid-backlog."""
    runs: list[Run] = []
    for kind in (Dmpd, *(PEERS[name] for name in names)):
        filled = backlog.fill(servers, kind, "A", records, SESSIONS["A"], 0.0)
        runs.append(backlog.run(servers, kind, filled, kill_at=0.4))
        print(f"G {runs[-1]}", flush=True)
    mine, *others = runs
    best = [min(one.recover_s for one in others)] if others else None
    return [
        figure("G", "s from the kill to the final state", [mine.recover_s], reference=best, bar="<= 1x"),
        *(figure(f"G/{one.name}", "s", [one.recover_s]) for one in others),
        worst("G/wrong", "rows", [float(mine.wrong)], bar="0"),
        figure("G/duplicates", "records", [float(mine.duplicates)]),
    ]


def lives(
    servers: Servers, letter: str, rounds: int, kinds: Sequence[type[Contender]], steady_s: float
) -> list[Figure]:
    runs: dict[str, list[Live]] = {kind.name: [] for kind in kinds}
    if steady_s:  # a broker that has just begun has not compiled its own code yet: whoever came first would pay
        print(f"{letter} warms the broker: {live.run(servers, kinds[0], letter, steady_s=_WARM_S)}", flush=True)
    for _ in range(rounds):
        for kind in random.sample(kinds, len(kinds)):
            runs[kind.name].append(live.run(servers, kind, letter, steady_s=steady_s))
            print(f"{letter} {runs[kind.name][-1]}", flush=True)
    return live_figures.figures(letter, runs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="A,B,C,D,E,F,R,G,decode", help="figures, by comma")
    parser.add_argument("--short", action="store_true", help="fewer records and rounds: for trying, not for stating")
    parser.add_argument("--records", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steady-s", type=float, default=60.0, help="how long D is measured, after 5 s")
    parser.add_argument("--peers", default="plain,spring-batch,pekko", help="by comma; empty for none")
    parser.add_argument("--keep", action="store_true", help="in the file: figures of earlier runs")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # whoever is measured ends with this process
    chosen = options.only.split(",")
    names = [name for name in options.peers.split(",") if name]
    records = options.records or (100_000 if options.short else 500_000)
    rounds = options.rounds or (1 if options.short else 3)
    figures: list[Figure] = []
    if "decode" in chosen:
        figures += decoding.measure()
    if set(chosen) - {"decode"}:
        for name in {*names, *(PACERS if names and "D" in chosen else ())}:
            PEERS[name].build()
        with running() as servers:
            for letter in ("A", "B"):
                if letter in chosen:
                    figures += backlogs(servers, letter, records, rounds, names)
            if "C" in chosen:
                figures += poison(servers, records, 1 if options.short else 2)
            if "D" in chosen:
                pacers = [PEERS[name] for name in PACERS] if names else []
                figures += lives(servers, "D", rounds, [Dmpd, Dmpd50, *pacers], options.steady_s)
            for letter in ("E", "F", "R"):
                if letter in chosen:
                    figures += lives(servers, letter, 1, [Dmpd, *(PEERS[name] for name in names)], 0)
            if "G" in chosen:
                figures += kill(servers, records, names)
    publish("cloud_registry", figures, keep=options.keep)


if __name__ == "__main__":
    main()
