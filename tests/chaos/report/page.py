"""The page: one HTML file that needs nothing from elsewhere. Whatever comes from a run is escaped on its way in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tests.chaos.report import words
from tests.chaos.report.drawing import FELT, spark, timeline
from tests.chaos.report.facts import Report
from tests.chaos.report.growth import JUDGED_SECONDS, WARM_UP_SECONDS, Points
from tests.chaos.report.series import Timeline

STYLE = Path(__file__).with_name("style.css")
PAGE = Markup("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
<body>
{body}
</body>
</html>
""")


def page(report: Report, drawn: Timeline) -> str:
    """Return the whole page, the verdict first."""
    run = report["run"]
    seed = "" if run["seed"] is None else f", seed {run['seed']}"
    body = Markup("\n").join(
        [
            *_head(report, seed),
            *_section("Figures", _figures(report)),
            *_section("The run over time", _timeline(drawn)),
            *_section("Faults", _faults(report)),
            *_section("Promises", _promises(report)),
            *_section("What broke", _findings(report)),
            *_section("What was odd", _oddities(report)),
            *_section("Memory and connections", _growth(report, drawn)),
            *_section("Again", _again(run)),
        ]
    )
    style = Markup(STYLE.read_text(encoding="utf-8"))  # noqa: S704  our own file
    return str(PAGE.format(title=f"Chaos run{seed}: {report['verdict']}", style=style, body=body))


def _head(report: Report, seed: str) -> Iterator[Markup]:
    run, word = report["run"], report["verdict"]
    day = f"{datetime.fromtimestamp(run['began'], UTC):%Y-%m-%d %H:%M} UTC"
    size = f"{run['size']} " if run["size"] else ""
    yield Markup('<p class="over">Surefoot, chaos run: {}{}, {}</p>').format(size, run["name"] + seed, day)
    yield Markup('<h1 class="{0}">{1}</h1>').format(word, word.capitalize())
    told = f"{run['jobs']:,} jobs, {run['faults']:,} faults, {run['seconds'] / 60:.1f} minutes."
    yield Markup('<p class="lead">{} {}</p>').format(words.VERDICTS[word], told)
    if word == "held" and report["bounds"]["per_job_below"]:
        share = f"{report['bounds']['per_job_below']:.2g}"
        yield Markup(
            '<p class="soft">No loss and no second effect in so many jobs: the true share of either is below {} a job,'
            " 95 times out of 100.</p>"
        ).format(share)
    if report["why"]:
        yield Markup('<ul class="why">{}</ul>').format(_joined("<li>{}</li>", report["why"]))


def _section(title: str, parts: Iterable[Markup]) -> Iterator[Markup]:
    inner = Markup("\n").join(parts)
    if inner:
        yield Markup("<section><h2>{}</h2>\n{}</section>").format(title, inner)


def _figures(report: Report) -> Iterator[Markup]:
    rows = [
        (each["what"], _number(each["value"], each["unit"]), each["target"] or "", _mark(each["held"]))
        for each in report["figures"]
    ]
    if rows:
        yield _table(("", "measured", "to be", ""), rows, numbers=(1, 2))


def _timeline(drawn: Timeline) -> Iterator[Markup]:
    yield Markup('<div class="wide">{}</div>').format(timeline(drawn))
    box = Markup(
        '<span><svg viewBox="0 0 10 10" aria-hidden="true"><rect class="mark {}" x="1" y="1" width="8" height="8"/>'
        "</svg>{}</span>"
    )
    yield Markup('<p class="key">{}</p>').format(Markup("").join(box.format(felt, FELT[felt]) for felt in FELT))


def _faults(report: Report) -> Iterator[Markup]:
    rows = [
        (
            _code(each["kind"]),
            each["what"],
            each["struck"],
            each["bit"],
            each["quota"] or "",
            "" if each["enough"] else _word("inconclusive", "too few"),
        )
        for each in report["faults"]
    ]
    if rows:
        yield _table(("kind", "what", "struck", "bit", "at least", ""), rows, numbers=(2, 3, 4))
    for kind, why in report["run"]["not_here"].items():
        yield Markup('<p class="soft">{} could not be had here: {}.</p>').format(_code(kind), why)


def _promises(report: Report) -> Iterator[Markup]:
    rows = [
        (
            each["id"],
            each["what"],
            f"{each['judged']:,}",
            each["broken"] or "",
            _word(each["verdict"].partition(" ")[0], each["verdict"]),
            _figures_in_words(each["figures"]),
        )
        for each in report["invariants"]
    ]
    yield _table(("", "promise", "judged", "broken", "", ""), rows, numbers=(2, 3))


def _findings(report: Report) -> Iterator[Markup]:
    rows = [
        (
            each["invariant"],
            each["expected"],
            each["found"],
            _code(each["job"] or each["key"] or ""),
            ", ".join(each["rests_on"][:4]),
        )
        for each in report["findings"]
    ]
    if rows:
        yield _table(("", "expected", "found", "job", "rests on"), rows)
    more = report["findings_in_all"] - len(rows)
    if more > 0:
        yield Markup('<p class="soft">… and {} more in verdict.json.</p>').format(f"{more:,}")


def _oddities(report: Report) -> Iterator[Markup]:
    if report["oddities"]:
        yield Markup("<ul>{}</ul>").format(_joined("<li>{}</li>", report["oddities"]))


def _growth(report: Report, drawn: Timeline) -> Iterator[Markup]:
    if not drawn.places:
        return
    growth = report["growth"]
    judged = {f"{each['process']} ({each['pid']})" for each in growth["judged"]}
    yield Markup("<p>{}</p>").format(
        f"Whoever was watched for {JUDGED_SECONDS:.0f} s after {WARM_UP_SECONDS:.0f} s of warm-up is judged, by the"
        f" median slope between all pairs of samples: {len(judged)} of the {growth['watched']} processes that outlived"
        f" their warm-up, {growth['growing'] or 'none'} growing."
    )
    yield _places(drawn)
    if growth["judged"]:
        yield _table(("judged", "", "watched", "level", "a minute", "grew", "allowed", ""), _slopes(growth["judged"]))
    yield _table(("connections", "over the run", "most"), _connections(drawn), numbers=(2,))
    left = report["connections"]
    yield Markup('<p class="soft">{}</p>').format(
        f"Before the run and after it: Postgres {left['postgres_before']} and {left['postgres_after']},"
        f" Redis {left['redis_before']} and {left['redis_after']}."
    )


def _places(drawn: Timeline) -> Markup:
    most = _most(line for place in drawn.places for line in place.memory)
    connected = _most(line for place in drawn.places for line in place.connections)
    rows = [
        (
            _code(place.name),
            spark(place.memory, drawn.seconds, most=most),
            f"{_most(place.memory):.0f} MiB",
            spark(place.connections, drawn.seconds, most=connected) if place.connections else "",
            f"{_most(place.connections):.0f}" if place.connections else "",
            place.files,
            place.threads,
            place.lives,
        )
        for place in drawn.places
    ]
    measured = ("memory over the run", "most", "own connections to Postgres", "most", "files", "threads", "lives")
    return _table(("process", *measured), rows, numbers=(2, 4, 5, 6, 7))


def _most(lines: Iterable[Points]) -> float:
    return max((value for line in lines for _, value in line), default=0.0)


def _slopes(judged: Sequence[Mapping[str, Any]]) -> list[tuple[Any, ...]]:
    def amount(value: float, measure: str) -> str:
        return f"{value / 1024:.2f} MiB" if measure == "rss_kib" else f"{value:.1f}"

    return [
        (
            _code(f"{each['process']} ({each['pid']})"),
            words.MEASURES[each["measure"]],
            f"{each['seconds'] / 60:.1f} min",
            *(amount(each[name], each["measure"]) for name in ("level", "per_minute", "grew", "allowed")),
            _word("growing", "growing") if each["is_growing"] else "",
        )
        for each in sorted(judged, key=lambda each: (not each["is_growing"], each["measure"], each["process"]))
    ]


def _connections(drawn: Timeline) -> list[tuple[Any, ...]]:
    highest = {name: _most(lines) for name, lines in drawn.connections.items()}
    most = max(highest.values(), default=0.0)
    return [
        (name, spark(lines, drawn.seconds, most=most), f"{highest[name]:.0f}")
        for name, lines in drawn.connections.items()
    ]


def _again(run: Mapping[str, Any]) -> Iterator[Markup]:
    if run["command"]:
        yield Markup("<pre>{}</pre>").format(run["command"])
    facts = {"machine": run["machine"], **run["versions"]}
    pairs = [Markup("<dt>{}</dt><dd>{}</dd>").format(name, value) for name, value in facts.items() if value]
    if pairs:
        yield Markup("<dl>{}</dl>").format(Markup("").join(pairs))


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[int] = ()) -> Markup:
    def cells(tag: str, values: Sequence[Any]) -> Markup:
        cell = Markup('<{0} class="{1}">{2}</{0}>')
        kinds = ["n" if number in numbers else "what" if number == 1 else "name" for number in range(len(values))]
        return Markup("").join(cell.format(tag, kind, value) for kind, value in zip(kinds, values, strict=True))

    lines = Markup("\n").join(Markup("<tr>{}</tr>").format(cells("td", row)) for row in rows)
    frame = Markup('<div class="wide"><table><thead><tr>{}</tr></thead><tbody>\n{}\n</tbody></table></div>')
    return frame.format(cells("th", head), lines)


def _figures_in_words(figures: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "not measured"
    return f"{value:,.5g} {unit}".rstrip() if abs(value) < 10_000 else f"{value:,.0f} {unit}".rstrip()


def _mark(held: bool | None) -> Markup:  # noqa: FBT001  a figure's own
    if held is None:
        return Markup()
    return _word("held", "held") if held else _word("broken", "not held")


def _word(kind: str, said: str) -> Markup:
    return Markup('<span class="{}">{}</span>').format(kind, said)


def _code(said: str) -> Markup:
    return Markup("<code>{}</code>").format(said)


def _joined(frame: str, values: Iterable[Any]) -> Markup:
    return Markup("").join(Markup(frame).format(value) for value in values)  # noqa: S704  our own frame
