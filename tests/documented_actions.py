"""The examples of the documentation's pages, as a worker loads them: what the pages show has to work."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.unbroken import unbroken

DOCS = Path(__file__).parents[1] / "docs"
# A word that tells each example from the others of its page.
EXAMPLES = (
    ("actions.md", "async def ask"),
    ("actions.md", "async def sort"),
    ("errors.md", "async def charge"),
    ("gates.md", "def large_payouts"),
    ("gates.md", "def price"),
    ("gates.md", "def adds_up"),
)

unbroken("price", "ticket", "card", "payout", "text", "split")


def example(page: str, word: str) -> str:
    """Return the one block of Python on a page that has this word."""
    (block,) = (b for b in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL) if word in b)
    return str(block)


for _page, _word in EXAMPLES:
    # In this module's own names: an action's types are looked up in the module that it says it is of.
    exec(compile(example(_page, _word), _page, "exec"), vars(sys.modules[__name__]))  # noqa: S102  our own pages
