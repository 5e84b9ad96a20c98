"""Lists of what a study can name and of the terms of results, with one line on each entry."""

import inspect
import re
from collections.abc import Mapping

from wemem.attacks import ATTACKS, PRESETS
from wemem.config.glossary import GLOSSARY
from wemem.data.sources import DESCRIPTIONS
from wemem.defenses import CHAINS, DEFENSES
from wemem.models import MODELS
from wemem.pruning import CRITERIA

#: The lists, by the word that selects one.
LISTS = ("attacks", "defenses", "data", "models", "criteria", "terms")


def catalogue() -> dict[str, dict[str, str]]:
    """Every name that a study knows and every term, by list, with one line on each.

    >>> catalogue()["defenses"]["undefended"]
    'Plain fine-tuning: the identity, and in every comparison.'
    """
    presets = {name: f"Preset of {len(names)} attacks." for name, names in PRESETS.items()}
    chains = {name: f"Chain of {' and '.join(parts.split('+'))}." for name, parts in CHAINS.items()}
    data = {str(name): line for name, line in DESCRIPTIONS.items()}
    listed = [_lines(ATTACKS) | presets, _lines(DEFENSES) | chains, data, _lines(MODELS), _lines(CRITERIA), GLOSSARY]
    return dict(zip(LISTS, listed, strict=True))


def _lines(classes: Mapping[str, type]) -> dict[str, str]:
    return {name: _first_sentence(cls) for name, cls in classes.items()}


def _first_sentence(cls: type) -> str:
    """The first paragraph of a class's docstring as plain text."""
    paragraph = (inspect.getdoc(cls) or "").split("\n\n")[0]
    return " ".join(re.sub(r":\w+:|`", "", paragraph).split())
