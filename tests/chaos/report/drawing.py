"""The pictures of a report, as SVG within the page: they take their colours from its style, by day and by night."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tests.chaos.report.growth import Points
from tests.chaos.report.series import LAYERS, Mark, Timeline

WIDTH, LEFT, RIGHT = 1000.0, 168.0, 14.0
TOP, PANEL, BETWEEN = 22.0, 104.0, 40.0
ROW = 12.0
SPARK_WIDTH, SPARK_HEIGHT = 260.0, 28.0
# What a fault that was over at once is wide.
LEAST_WIDTH = 2.0
FELT: Mapping[str, str] = {"bit": "felt", "unfelt": "not felt", "unsure": "cannot be judged"}


@dataclass(frozen=True, slots=True)
class Panel:
    """A part of the picture: from which height on, and what its upper edge stands for."""

    top: float
    height: float
    most: float

    def y(self, value: float) -> float:
        """Return where a value lies."""
        return self.top + self.height * (1 - min(1.0, value / self.most if self.most else 0.0))


def timeline(run: Timeline) -> Markup:
    """Draw throughput, backlog, recoveries and faults over one axis of time."""
    kinds = list(dict.fromkeys(mark.kind for mark in sorted(run.marks, key=lambda mark: mark.kind)))
    panels = _panels(run)
    faults_top = TOP + len(panels) * (PANEL + BETWEEN)
    bottom = faults_top + ROW * len(kinds)
    parts = [
        *_axis(run, bottom),
        *_storm(run, bottom),
        *_throughput(run, panels[0]),
        *_backlog(run, panels[1]),
        *_recovered(run, panels[2]),
        *_faults(run, kinds, faults_top),
    ]
    frame = Markup('<svg class="timeline" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return frame.format(_n(WIDTH), _n(bottom + 34), "The run over time", Markup("").join(parts))


def spark(lines: Sequence[Points], seconds: float, *, most: float) -> Markup:
    """Draw a small line for each of several processes, one after the other."""
    panel = Panel(2.0, SPARK_HEIGHT - 4.0, most)
    paths = [_path([(at / seconds * SPARK_WIDTH, panel.y(value)) for at, value in line], "spark") for line in lines]
    frame = Markup('<svg class="spark" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true">{}</svg>')
    return frame.format(_n(SPARK_WIDTH), _n(SPARK_HEIGHT), Markup("").join(paths))


def _panels(run: Timeline) -> list[Panel]:
    totals = [sum(values) for values in zip(*([v for _, v in layer] for layer in run.backlog.values()), strict=True)]
    highest = (
        max((value for piece in run.throughput for _, value in piece), default=0.0),
        max(totals, default=0.0),
        max((seconds for _, seconds in run.recovered), default=0.0),
    )
    return [Panel(TOP + number * (PANEL + BETWEEN), PANEL, _nice(most)) for number, most in enumerate(highest)]


def _axis(run: Timeline, bottom: float) -> Iterator[Markup]:
    step = next(s for s in (5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 86_400) if run.seconds / s <= 14)
    for number in range(int(run.seconds // step) + 1):
        at = number * step
        yield _line(_x(run, at), TOP, _x(run, at), bottom, "grid")
        yield _text(_x(run, at), bottom + 16, f"{at // 60}:{at % 60:02d}", "tick middle")
    yield _text(WIDTH - RIGHT, bottom + 30, "minutes since the run began", "tick end")


def _storm(run: Timeline, bottom: float) -> Iterator[Markup]:
    if run.storm is None:
        return
    began, ended = (_x(run, at) for at in run.storm)
    rect = Markup('<rect class="storm" x="{}" y="{}" width="{}" height="{}"/>')
    yield rect.format(_n(began), _n(TOP), _n(max(0.0, ended - began)), _n(bottom - TOP))
    yield _text(began + 4, TOP - 8, "first fault", "tick")
    yield _text(max(began + 60, ended - 4), TOP - 8, "last fault", "tick end")


def _throughput(run: Timeline, panel: Panel) -> Iterator[Markup]:
    yield from _labels(panel, "jobs a second")
    for piece in run.throughput:
        yield _path([(_x(run, at), panel.y(value)) for at, value in piece], "line")


def _backlog(run: Timeline, panel: Panel) -> Iterator[Markup]:
    yield from _labels(panel, "open jobs")
    below: list[float] = []
    for number, name in enumerate(LAYERS):
        layer = run.backlog[name]
        below = below or [0.0] * len(layer)
        above = [under + value for under, (_, value) in zip(below, layer, strict=True)]
        edge = [(_x(run, at), panel.y(value)) for (at, _), value in zip(layer, above, strict=True)]
        back = [(_x(run, at), panel.y(value)) for (at, _), value in zip(layer, below, strict=True)]
        if layer:
            yield Markup('<path class="layer l{}" d="{}Z"/>').format(number, _d([*edge, *reversed(back)]))
        below = above
        key = panel.top + 34 + 15 * number
        yield Markup('<rect class="layer l{}" x="{}" y="{}" width="9" height="9"/>').format(number, 10, _n(key - 8))
        yield _text(24, key, name, "tick")


def _recovered(run: Timeline, panel: Panel) -> Iterator[Markup]:
    yield from _labels(panel, "seconds until the job of", "a silent worker went on")
    for at, seconds in run.recovered:
        dot = Markup('<circle class="dot" cx="{}" cy="{}" r="2.2"/>')
        yield dot.format(_n(_x(run, at)), _n(panel.y(seconds)))


def _faults(run: Timeline, kinds: Sequence[str], top: float) -> Iterator[Markup]:
    if kinds:
        yield _text(10, top - 8, "faults by kind", "label")
    for number, kind in enumerate(kinds):
        y = top + ROW * number
        yield _text(LEFT - 8, y + ROW - 3, kind, "tick end")
        yield _line(LEFT, y + ROW / 2, WIDTH - RIGHT, y + ROW / 2, "row")
        for mark in run.marks:
            if mark.kind == kind:
                yield _mark(run, mark, y)


def _mark(run: Timeline, mark: Mark, y: float) -> Markup:
    began, ended = _x(run, mark.began), _x(run, mark.ended)
    lasted = f"{mark.ended - mark.began:.1f} s from {mark.began:.0f} s on"
    told = f"{mark.kind} of {mark.target}, {lasted}: {FELT[mark.felt]}"
    rect = Markup('<rect class="mark {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
    return rect.format(mark.felt, _n(began), _n(y + 2), _n(max(LEAST_WIDTH, ended - began)), _n(ROW - 4), told)


def _labels(panel: Panel, *names: str) -> Iterator[Markup]:
    yield _line(LEFT, panel.top + panel.height, WIDTH - RIGHT, panel.top + panel.height, "base")
    for number, name in enumerate(names):
        yield _text(10, panel.top + 10 + 14 * number, name, "label")
    yield _text(LEFT - 8, panel.top + 9, f"{panel.most:g}", "tick end")
    yield _text(LEFT - 8, panel.top + panel.height, "0", "tick end")


def _x(run: Timeline, at: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, at / run.seconds))


def _nice(value: float) -> float:
    """Return the next of 1, 2, 5, 10, … that is not below a value."""
    if value <= 0:
        return 1.0
    tens = 10.0 ** math.floor(math.log10(value))
    return next(tens * step for step in (1, 2, 5, 10) if tens * step >= value)


def _path(points: Points, kind: str) -> Markup:
    return Markup('<path class="{}" d="{}"/>').format(kind, _d(points))


def _d(points: Points) -> str:
    return "".join(f"{'L' if number else 'M'}{_n(x)} {_n(y)}" for number, (x, y) in enumerate(points))


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(kind, _n(x1), _n(y1), _n(x2), _n(y2))


def _text(x: float, y: float, words: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, _n(x), _n(y), words)


def _n(value: float) -> str:
    """Return a coordinate, short: a tenth of a pixel is enough."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
