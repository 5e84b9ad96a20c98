"""The page on the architecture names every package, and places that exist."""

import re
from pathlib import Path

from wemem.store.fingerprint import PACKAGE

PAGE = (PACKAGE.parents[1] / "docs" / "architecture.md").read_text("utf-8")


def test_every_package_and_module_has_its_purpose_stated():
    table = PAGE.split("## Packages")[1].split("## ")[0]
    named = set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if "|" in line)))
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert parts - {"__init__", "__main__"} == named


def test_every_file_and_function_that_is_named_exists():
    for place in re.findall(r"`((?:\w+/)*\w+\.(?:py|json))`", PAGE):
        roots = (PACKAGE, PACKAGE.parents[1])
        assert "NAME" in place or any((root / place).exists() for root in roots), place
    for path, names in re.findall(r"\| `([\w/]+\.py)`, ((?:`\w+`(?:, )?)+)", PAGE):
        text = Path(PACKAGE, path).read_text("utf-8")
        assert all(f"def {name}(" in text for name in re.findall(r"\w+", names)), path
