"""What ``live`` measured, as figures."""

from collections.abc import Mapping, Sequence

from tests.bench.cloud_registry.contenders import Dmpd, Dmpd50
from tests.bench.cloud_registry.live import Live
from tests.bench.report import Figure, figure, worst

Runs = Mapping[str, Sequence[Live]]


def figures(letter: str, runs: Runs) -> list[Figure]:
    if letter == "D":
        return _steady(runs)
    mine = runs[Dmpd.name]
    others = {name: found for name, found in runs.items() if name != Dmpd.name}
    made = _burst(mine, others) if letter == "E" else _trouble(letter, mine, others)
    grown = [one.pss_peak_mib - one.pss_before_mib for one in mine]
    made.append(worst(f"{letter}/memory", "MiB more than before", grown, bar="<= 64"))  # "flat"
    made.append(worst(f"{letter}/wrong", "rows", [float(one.wrong + one.dead_letters) for one in mine], bar="0"))
    return made


def _steady(runs: Runs) -> list[Figure]:
    made = []
    for name, ours, rival, bars in (
        ("D0", Dmpd.name, "parallel", {"p50": "<= 6", "p99": "<= 20", "cpu": "<= 65"}),
        ("D50", Dmpd50.name, "plain", {"p50": "<= 65", "p99": None, "cpu": "<= 20"}),
    ):
        mine, others = runs[ours], runs.get(rival, ())
        for part, unit in (("p50", "ms"), ("p99", "ms"), ("cpu", "% of a core")):
            values, reference = ([_part(one, part) for one in found] for found in (mine, others))
            made.append(figure(f"{name}/{part}", unit, values, reference=reference, bar=bars[part]))
        made += [
            figure(f"{name}/cpu/{part}", "% of a core", [one.cpu_percent[part] for one in mine])
            for part in mine[0].cpu_percent
        ]
        made.append(figure(f"{name}/commits", "commits/s", [one.commits_per_s for one in mine]))
        made.append(worst(f"{name}/wrong", "rows", [float(one.wrong + one.dead_letters) for one in mine], bar="0"))
    return made


def _part(one: Live, part: str) -> float:
    if part == "cpu":
        return sum(percent for name, percent in one.cpu_percent.items() if name not in ("postgres", "kafka"))
    return one.p50_ms if part == "p50" else one.p99_ms


def _burst(mine: Sequence[Live], others: Runs) -> list[Figure]:
    best = min((found for found in others.values()), key=lambda found: found[0].drain_s, default=None)
    reference = [one.drain_s for one in best] if best else None
    made = [figure("E", "s until all is committed", [o.drain_s for o in mine], reference=reference, bar="<= 1.5x")]
    return made + [figure(f"E/{name}", "s", [one.drain_s for one in found]) for name, found in others.items()]


def _trouble(letter: str, mine: Sequence[Live], others: Runs) -> list[Figure]:
    made = [figure(letter, "s until latency is normal", [one.recover_s for one in mine], bar="<= 2")]
    made += [figure(f"{letter}/{name}", "s", [one.recover_s for one in found]) for name, found in others.items()]
    return [*made, worst(f"{letter}/again", "rows", [float(one.written_again) for one in mine], bar="0")]
