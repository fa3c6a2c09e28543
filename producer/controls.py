"""What is not to be seen of a text, and changes how the rest is seen, made visible.

A request may hold anything. It must not repaint an operator's terminal, nor turn around what a page says.
"""

from __future__ import annotations

import re

# What moves a terminal's cursor, turns text around, has no width, breaks lines unseen, or cannot be written at all.
# Tabs and line feeds stay; so do joiners, without which some scripts cannot be written.
_CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Return a text with such characters written out by their numbers, as Python writes them."""
    return _CONTROLS.sub(lambda match: match.group().encode("unicode_escape", "surrogatepass").decode(), text)
