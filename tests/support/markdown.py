"""Code blocks and tables of the Markdown documents, for the tests that hold them to what the program does."""

from __future__ import annotations

import re
from dataclasses import dataclass

from support.repository import ROOT


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    document: str
    line: int
    """Of the first line of code."""
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str, language: str) -> list[Block]:
    """The code blocks of `document`, a path in the repository, that are in `language`."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    every = [Block(document, text.count("\n", 0, match.start(2)) + 1, match[1], match[2]) for match in found]
    return [block for block in every if block.language == language]


def table(document: str, heading: str) -> list[list[str]]:
    """The cells of the table whose first column is called `heading`, without the head."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(f"| {heading} |")]
    assert len(starts) == 1, f"{document}: {len(starts)} tables that begin with {heading!r}"
    rows = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
    return rows
