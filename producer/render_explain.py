"""Explanations as people read them on a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from producer.explain import Explanation
from producer.render import STYLES


def explanation(found: Explanation) -> RenderableType:
    """Draw the answer first, then how it came to that, then what to do."""
    head = Text.assemble((found.action, "bold"), "  ", (found.state, STYLES.get(found.state, "")), f"  {found.job_id}")
    history = Table(box=None, show_header=False, pad_edge=False)
    history.add_column(style="dim", no_wrap=True)
    history.add_column(overflow="fold")
    began = next((line.at for line in found.lines if line.at is not None), None)
    for line in found.lines:
        since = "now" if line.at is None or began is None else f"+{(line.at - began).total_seconds():.3f} s"
        at = f"{line.at:%Y-%m-%d %H:%M:%S}" if line.at is not None and line.at == began else since
        history.add_row(at, Text(line.text))  # Text: what looks like markup is somebody's words
    parts: list[RenderableType] = [head, Text(found.headline, "bold"), Text(""), history]
    if found.next_steps:
        parts.append(Text("\nWhat to do next", "bold"))
    for step in found.next_steps:
        command = "." if step.command is None else f":\n    {step.command}"
        parts.append(Text(f"{step.text}{command}"))
    return Group(*parts)
