"""Tests of the docstrings of both packages: their first words follow the project's rule of writing.

A docstring opens with an imperative for a function and with a noun phrase for a class, a module or a field. It never
opens with a word that makes the summary line a fragment or a question, such as "Of", "Whether" or "How".
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from support.repository import ROOT

FORBIDDEN = {"Of", "Whether", "How", "What", "Where", "As", "Those", "Which", "Is"}
FILES = sorted(
    path.relative_to(ROOT).as_posix() for name in ("engine", "export") for path in (ROOT / name).rglob("*.py")
)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the text of every docstring, those of fields and constants included."""
    for node in ast.walk(ast.parse(source)):
        for body in (getattr(node, name, None) for name in ("body", "orelse", "handlers", "finalbody")):
            for statement in body if isinstance(body, list) else ():
                if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                    if isinstance(statement.value.value, str):
                        yield statement.lineno, statement.value.value


def misworded(source: str) -> list[int]:
    """Return the lines of the docstrings that open with a forbidden word."""
    opened = [(line, text.split(maxsplit=1)) for line, text in docstrings(source)]
    return sorted(line for line, words in opened if words and words[0].rstrip(",.:;") in FORBIDDEN)


@pytest.mark.parametrize("file", FILES)
def test_docstrings_open_with_an_imperative_or_a_noun_phrase(file: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert [f"{file}:{line}: {source.splitlines()[line - 1].strip()}" for line in misworded(source)] == []


def test_forbidden_words_are_found_in_all_kinds_of_docstrings() -> None:
    source = '''"""Of a module."""
SIZE = 3
"""Number of images."""
LIMIT = 4
"""How many images."""
class Job:
    """What runs."""
    name: str
    """Whether it has one."""
    def run(self):
        """As told."""
        text = "Where it is used as a value"
        if text:
            def inner():
                """Is called."""
    def stop(self):
        """
        Those that stop.
        """
'''
    assert misworded(source) == [1, 5, 7, 9, 11, 15, 17]
