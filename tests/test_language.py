"""Docstrings begin with a verb or a noun phrase, and use the field's terms."""

import ast
import re
from pathlib import Path

import pytest

SOURCES = sorted((Path(__file__).parents[1] / "src" / "wemem").rglob("*.py"))
QUESTION = re.compile(r"(What|Which|How|Who|Whose|Of|That|Those|Whatever|Whether)\b")
#: ``made_as`` is allowed where an old schema is read.
WORDS = re.compile(r"\b(told|accusing|in turn|said_by|shown_as|tenths)\b")


def docstrings(path):
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield f"{path.name}: {getattr(node, 'name', '')}", text


def test_no_docstring_begins_with_a_question_word():
    assert [where for path in SOURCES for where, text in docstrings(path) if QUESTION.match(text)] == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_fields_terms_are_used(path):
    assert WORDS.findall(path.read_text("utf-8")) == []
