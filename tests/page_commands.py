"""What the pages for operators tell people to run: the lines of their blocks of shell, and commands within the text."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tests.unit.markdown import DOCS

PAGES = ("operating.md", "deploy.md")
PROGRAMS = ("celery", "curl", "docker", "git", "kubectl", "make", "pip", "psql", "ssh", "surefoot", "surefoot-worker")
# Beside shell, a block may be of what is read by a program, or is what one has printed.
NO_COMMANDS = ("", "python", "yaml")

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class Command:
    """Something to be run.

    Attributes:
        text: As it stands there; a line that goes on in the next one is one with it.
        page: The page's name.
        in_text: Whether it stands within the text, and in no block.
    """

    text: str
    page: str
    in_text: bool = False

    @property
    def program(self) -> str:
        """What it runs first; "" where the shell does it all."""
        first = self.text.split()[0]
        return first if first in PROGRAMS else ""

    def __str__(self) -> str:
        return self.text


def blocks(page: str) -> list[list[Command]]:
    """Return the page's blocks of shell, each with its lines, in order."""
    text = (DOCS / page).read_text()
    found = [body.replace("\\\n", "").splitlines() for language, body in _BLOCK.findall(text) if language == "sh"]
    return [[Command(line, page) for line in lines if line.strip()] for lines in found]


def languages(page: str) -> set[str]:
    """Return the languages of the page's blocks."""
    return {language for language, _ in _BLOCK.findall((DOCS / page).read_text())}


def sources(page: str, language: str) -> list[str]:
    """Return the page's blocks of a language."""
    return [body for found, body in _BLOCK.findall((DOCS / page).read_text()) if found == language]


def in_text(page: str) -> list[Command]:
    """Return the commands within the page's text, in order, each once: a program that is known, and words to it."""
    text = _BLOCK.sub("", (DOCS / page).read_text())
    found = [" ".join(code.split()) for code in _CODE.findall(text)]
    commands = [Command(code, page, in_text=True) for code in dict.fromkeys(found) if " " in code]
    return [each for each in commands if each.program]


def commands(page: str) -> list[Command]:
    """Return all of them: of the blocks, and then of the text."""
    return [*(each for block in blocks(page) for each in block), *in_text(page)]
