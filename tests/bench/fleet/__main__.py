"""Load a verifier with a simulated fleet and say what it costs: `python -m tests.bench.fleet --help`."""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.fleet import floor, host
from tests.bench.fleet.crew import Outcome, Plan, work
from tests.bench.fleet.processors import divided, family, keep_to, waited
from tests.bench.fleet.shares import NoShareError, limited
from tests.bench.fleet.storm import Storm, Watcher, storm

_EXAMPLES = """\
examples:
  python -m tests.bench.fleet --guests 200 --seconds 20
  python -m tests.bench.fleet --database postgresql --workers 2 --rate 1000
  python -m tests.bench.fleet --guests 10000 --known 200 --storm
  python -m tests.bench.fleet --reboots 0.01 --hostile 0.05 --json
  python -m tests.bench.fleet --url https://attest.example:8443 --ca ca.pem --token vtj1.…
"""


@dataclass(frozen=True)
class Report:
    """One run, in numbers."""

    database: str
    workers: int
    guests: int
    attestations: int
    per_second: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    verifier_cpu_us: float | None
    """Of all its processes, per attestation; None: it is not ours to look into."""
    database_cpu_us: float | None
    """Of PostgreSQL's processes; SQLite's is the verifier's."""
    floor_cpu_us: float | None
    """Of what no attestation can do without (`floor`); None where the verifier's cost is not known."""
    guests_cpu_us: float
    request_bytes: float
    reply_bytes: float
    database_bytes: float | None
    """Growth per attestation."""
    wal_bytes: float | None
    """Of PostgreSQL's write-ahead log, per attestation."""
    resident_mb: list[float]
    verdicts: dict[str, int]
    refusals: dict[str, int]
    repelled: dict[str, int]
    broken: int
    wrong: list[str]
    share: float | None = None
    """Of a processor, for each worker; None: not limited."""
    apart: bool = False
    """A processor for each worker, others for guests and database."""
    busy: dict[str, float] = field(default_factory=dict)
    """Processors that each party used on average."""
    lacked: dict[str, float] = field(default_factory=dict)
    """And that it would have used beyond: its threads could run, and stood in line. Latencies are of that, too."""
    storm: Storm | None = None


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.fleet",
        description="Guests with software TPMs that really sign, against a verifier started for it (or against yours).",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--guests", type=int, default=100)
    add("--seconds", type=float, default=10.0)
    add("--rate", type=float, help="attestations a second; without it as many as are answered")
    add("--crews", type=int, default=1, help="processes of the load generator")
    add("--workers", type=int, default=1, help="of the verifier")
    add("--share", type=float, help="of a processor for each worker, 0.25 for instance, by control groups")
    add(
        "--apart", action="store_true", help="a processor for each worker, the others for guests and database"
    )
    add("--database", choices=["sqlite", "postgresql"], default="sqlite")
    add("--rsa", type=float, default=0.0, help="share of guests with an RSA-2048 AK (they sign slowly)")
    add("--hostile", type=float, default=0.0, help="share that tampers, replays or forges")
    add("--reboots", type=float, default=0.0, help="chance of a reboot before each attestation")
    add("--storm", action="store_true", help="all boot at once: enrolment and first attestation are measured")
    add(
        "--known",
        type=int,
        default=0,
        help="guests that enrolled before the storm and attest through it, every 10 s",
    )
    add("--settings", default="", help="TOML for the verifier's settings")
    add("--url", help="a running verifier instead of one of our own; with --ca and --token")
    add("--ca", type=Path)
    add("--token", help="join token with enough uses; its anchors must hold the simulator's CA")
    add("--json", action="store_true")
    options = parser.parse_args()
    if options.url and (options.share or options.apart):
        parser.error(
            "--share and --apart are for a verifier that is started for the run, not for that at --url"
        )
    try:
        if options.share is not None:
            with limited([list], options.share):  # known now, not after all have enrolled
                pass
        if options.apart:
            divided(os.sched_getaffinity(0), options.workers)
    except (ValueError, NoShareError) as error:
        parser.error(str(error))
    return options


def main() -> int:
    """Run, report; 1 where an answer was wrong."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # what was started is ended and removed
    options = arguments()
    console = Console(stderr=True)
    with console.status(f"{options.guests} guests"):
        if options.url:
            report = run(options, options.url, options.ca, options.token, None)
        else:
            with host.verifier(
                workers=options.workers, database=options.database, more=options.settings
            ) as own:
                report = run(options, own.url, own.ca, own.token, own)
    if options.json:
        print(json.dumps(asdict(report), indent=1))
    else:
        Console().print(table(report))
    for line in report.wrong[:20]:
        console.print(f"[red]WRONG[/] {line}")
    return 1 if report.wrong else 0


def run(options: argparse.Namespace, url: str, ca: Path, token: str, own: host.Verifier | None) -> Report:
    """Let all crews go at the same moment, and look at the verifier before and after."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(options.crews + 1), context.Queue()
    shares = [
        options.guests // options.crews + (n < options.guests % options.crews) for n in range(options.crews)
    ]
    crews = [
        context.Process(target=work, args=(plan, barrier, results), daemon=True)
        for plan in (
            Plan(
                url=url,
                ca=ca,
                token=token,
                first=sum(shares[:number]),
                count=share,
                seconds=options.seconds,
                rate=None if options.rate is None else options.rate * share / options.guests,
                rsa=options.rsa,
                hostile=options.hostile,
                reboots=options.reboots,
                storm=options.storm,
                known=options.known // options.crews + (number < options.known % options.crews),
            )
            for number, share in enumerate(shares)
        )
    ]
    for crew in crews:
        crew.start()
    watcher = Watcher(own) if own and options.storm else None
    barrier.wait()  # whoever is enrolled beforehand is
    with _confined(options, own, [crew.pid or 0 for crew in crews]):
        before = _spent(own)
        barrier.wait()  # they begin
        barrier.wait()  # and have ended
        spent = [now - then for now, then in zip(_spent(own), before, strict=True)]
    resident = sorted((value / 1e6 for value in own.resident().values()), reverse=True) if own else []
    outcomes = [results.get(timeout=60) for _ in crews]
    for crew in crews:
        crew.join()
    report = summary(options, outcomes, spent, resident)
    if options.storm:
        seen, wrong = storm(outcomes, watcher, options.guests + options.known)
        report = replace(report, storm=seen, wrong=[*report.wrong, *wrong])
    return report


@contextlib.contextmanager
def _confined(options: argparse.Namespace, own: host.Verifier | None, crews: list[int]) -> Iterator[None]:
    """What `--share` and `--apart` leave to whom, until the end of the block."""
    if own is None:
        yield
        return
    if options.apart:
        workers, others = divided(os.sched_getaffinity(0), options.workers)
        keep_to(workers, own.processes())
        keep_to(others, [*crews, *(own.cluster.processes() if own.cluster else ())])
    if not options.share:
        yield
        return
    with limited([partial(family, pid) for pid in own.workers()], options.share):
        yield


def _spent(own: host.Verifier | None) -> list[float]:
    """Of the verifier and of PostgreSQL: CPU seconds, bytes of database and write-ahead log, seconds without a processor."""
    if own is None:
        return []
    server = own.cluster
    apart = (
        (0.0, 0.0, 0.0) if server is None else (server.cpu(), float(server.wal()), waited(server.processes()))
    )
    return [own.cpu(), apart[0], own.database_bytes(), apart[1], waited(own.processes()), apart[2]]


def summary(
    options: argparse.Namespace,
    outcomes: list[Outcome],
    spent: list[float],
    resident: list[float],
) -> Report:
    """All crews together."""
    latencies = sorted(latency for out in outcomes for latency in out.latencies)
    count = max(1, len(latencies))

    def at(share: float) -> float:
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))] * 1e3 if latencies else 0.0

    def total(name: str) -> dict[str, int]:
        whole: collections.Counter[str] = collections.Counter()
        for out in outcomes:
            whole += getattr(out, name)
        return dict(sorted(whole.items()))

    verifier, database, grown, wal = (value / count for value in spent[:4]) if spent else (None,) * 4
    apart = options.database == "postgresql"
    per_second = sum(len(out.latencies) / out.seconds for out in outcomes if out.seconds)
    request, reply = (sum(getattr(out, way) for out in outcomes) / count for way in ("sent", "received"))
    measured = bool(spent) and per_second > 0 and not options.storm
    return Report(
        database=options.database,
        workers=options.workers,
        guests=options.guests,
        attestations=len(latencies),
        per_second=per_second,
        p50_ms=at(0.5),
        p99_ms=at(0.99),
        p999_ms=at(0.999),
        verifier_cpu_us=None if verifier is None else verifier * 1e6,
        database_cpu_us=database * 1e6 if apart and database is not None else None,
        floor_cpu_us=floor.cpu_us(request, reply) if measured else None,
        guests_cpu_us=sum(out.cpu for out in outcomes) / count * 1e6,
        request_bytes=request,
        reply_bytes=reply,
        database_bytes=grown,
        wal_bytes=wal if apart else None,
        resident_mb=[round(value, 1) for value in resident],
        verdicts=total("verdicts"),
        refusals=total("refusals"),
        repelled=total("repelled"),
        broken=sum(out.broken for out in outcomes),
        wrong=[line for out in outcomes for line in out.wrong],
        share=options.share,
        apart=options.apart,
        busy=_processors(outcomes, sum(out.cpu for out in outcomes), spent[:2]),
        lacked=_processors(outcomes, sum(out.waited for out in outcomes), spent[4:]),
    )


def _processors(outcomes: list[Outcome], guests: float, own: list[float]) -> dict[str, float]:
    """How many each party had, or lacked, on average, of the seconds it did so in all."""
    seconds = max((out.seconds for out in outcomes), default=0.0)
    parties = zip(("guests", "verifier", "database"), (guests, *own), strict=False)
    return {name: round(max(0.0, spent) / seconds, 3) for name, spent in parties} if seconds else {}


def table(report: Report) -> Table:
    """For people."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold")
    made.add_column(justify="right")

    def row(name: str, value: object, unit: str = "") -> None:
        text = f"{value:,.1f}" if isinstance(value, float) else str(value)
        made.add_row(name, f"{text} {unit}".rstrip())

    limit = "" if report.share is None else f", {report.share:g} of a processor each"
    limit += ", a processor for each" if report.apart else ""
    row("verifier", f"{report.workers} worker(s), {report.database}{limit}")
    row("guests", report.guests)
    row("attestations", report.attestations)
    row("rate", report.per_second, "/s")
    row(
        "latency p50 / p99 / p99.9", f"{report.p50_ms:.1f} / {report.p99_ms:.1f} / {report.p999_ms:.1f}", "ms"
    )
    if report.verifier_cpu_us is not None:
        row("verifier CPU each", report.verifier_cpu_us, "us")
    if report.database_cpu_us is not None:
        row("database CPU each", report.database_cpu_us, "us")
    if report.verifier_cpu_us is not None and report.floor_cpu_us:
        row("a bare HTTPS POST and two signatures", report.floor_cpu_us, "us")
        row("verifier against that", f"{report.verifier_cpu_us / report.floor_cpu_us:.1f}x")
    row("guests' CPU each", report.guests_cpu_us, "us")
    for name, processors in (("used", report.busy), ("lacked", report.lacked)):
        row(f"processors {name}", ", ".join(f"{party} {count:.2f}" for party, count in processors.items()))
    row("request / reply each", f"{report.request_bytes:,.0f} / {report.reply_bytes:,.0f}", "bytes")
    if report.database_bytes is not None:
        row("database growth each", report.database_bytes, "bytes")
    row("resident", ", ".join(f"{value:.0f}" for value in report.resident_mb[:6]), "MB")
    for name in ("verdicts", "refusals", "repelled"):
        row(name, ", ".join(f"{key} {value}" for key, value in getattr(report, name).items()) or "none")
    row("connections lost", report.broken)
    if report.storm is not None:
        _storm_rows(report.storm, row)
    return made


def _storm_rows(seen: Storm, row: Callable[..., None]) -> None:
    row("all enrolled and judged after", seen.seconds, "s")
    row("known guests", f"{seen.known}, {seen.known_attestations} attestations meanwhile")
    row(
        "  latency p50 / p99 / worst",
        f"{seen.known_p50_ms:,.0f} / {seen.known_p99_ms:,.0f} / {seen.known_worst_ms:,.0f}",
        "ms, from when it was due",
    )
    row("sent away", ", ".join(f"{party} {count} times" for party, count in seen.sent_away.items()))
    if seen.retry_after:
        least, median, most, values = seen.retry_after
        row(
            "  Retry-After least / median / most",
            f"{least:.0f} / {median:.0f} / {most:.0f}",
            f"s, {values:.0f} different",
        )
    row(
        "most that waited",
        ", ".join(f"{name} {count:.0f}" for name, count in seen.queues.items()) or "not seen",
    )
    row("connections closed", ", ".join(f"{why} {count:.0f}" for why, count in seen.closed.items()) or "none")
    row("memory at its peak", ", ".join(f"{value:.0f}" for value in seen.peak_mb), "MB")
    row("attesters in the API", "not asked" if seen.attesters is None else seen.attesters)


if __name__ == "__main__":
    sys.exit(main())
