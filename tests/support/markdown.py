"""Read code blocks, tables, links and anchors of the Markdown documents, for the tests that check them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from support.repository import ROOT


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    document: str
    line: int
    """Line number of the first line of code in the document."""
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.document}:{self.line}"


def blocks(document: str, language: str) -> list[Block]:
    """Return the code blocks in `language` of `document`, a path in the repository."""
    text = (ROOT / document).read_text(encoding="utf-8")
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    every = [Block(document, text.count("\n", 0, match.start(2)) + 1, match[1], match[2]) for match in found]
    return [block for block in every if block.language == language]


def table(document: str, heading: str) -> list[list[str]]:
    """Return the body cells of the table whose first column has this heading."""
    lines = (ROOT / document).read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(f"| {heading} |")]
    assert len(starts) == 1, f"{document}: {len(starts)} tables that begin with {heading!r}"
    rows = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip().strip("|").split(" | ")])
    return rows


def documents() -> list[str]:
    """Return the paths of all Markdown documents of the repository, relative to its root."""
    found = [*ROOT.glob("*.md"), *(ROOT / "benchmarks").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def anchors(text: str) -> set[str]:
    """Return the anchors that GitHub gives the headings in `text`.

    GitHub takes the displayed heading in lower case, removes punctuation and replaces each space with a hyphen.
    A heading that repeats an earlier one gets the suffix -1, -2 and so on.
    """
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6} +(.+?)(?: +#+)? *$", _without_code_blocks(text), re.MULTILINE):
        displayed = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", displayed.lower()).replace(" ", "-")
        anchor, repeats = name, 0
        while anchor in found:
            repeats += 1
            anchor = f"{name}-{repeats}"
        found.add(anchor)
    return found


def broken_links(path: Path) -> list[str]:
    """Return the links and images in the document at `path` that lead to no file or heading of the repository.

    Links to other sites are not followed.
    """
    prose = _without_code_blocks(path.read_text(encoding="utf-8"))
    # Inline code ends within its paragraph, so a stray backtick does not hide links of the next paragraph.
    prose = re.sub(r"(`+)[^`](?:(?!\n\n).)*?\1", "", prose, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)", prose)
    return [link for link in links if "://" not in link and not _leads_somewhere(path, link)]


def _leads_somewhere(path: Path, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = path.parent / name if name else path
    if not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in anchors(target.read_text(encoding="utf-8")))


def _without_code_blocks(text: str) -> str:
    return re.sub(r"^(```+).*?^\1 *$", "", text, flags=re.MULTILINE | re.DOTALL)
