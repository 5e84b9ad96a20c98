"""``"package.module:attribute"``: how a study names code that is not ours."""

import importlib
import pkgutil
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from wemem.errors import InputError


def resolve(spec: str) -> object:
    """The object that ``spec`` names.

    The current directory is put first on the import path and stays there, as ``python -m`` does, so that a file
    beside the study file can be named. Whatever the module raises while it is imported is the user's own and passes
    through with its traceback.

    Args:
        spec: dotted module, a colon, and the attribute; a dotted attribute reaches into classes.

    Raises:
        InputError: not of that form, no such module, or no such attribute in it.

    >>> resolve("math:floor")(2.5)
    2
    >>> resolve("math:flor")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected 'flor' in math, got no such name; did you mean 'floor'?
    """
    module_name, colon, attribute = spec.partition(":")
    if not colon or not all(part.isidentifier() for part in f"{module_name}.{attribute}".split(".")):
        raise InputError(f"expected 'package.module:name', got {spec!r}")
    found: object = import_module(module_name)
    where = module_name
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = (name for name in dir(found) if not name.startswith("_"))
            raise InputError(f"expected {part!r} in {where}, got no such name{did_you_mean(part, names)}")
        found, where = getattr(found, part), f"{where}.{part}"
    return found


def import_module(name: str) -> ModuleType:
    """Import ``name``, from the current directory too.

    Raises:
        InputError: there is no such module. A module that it imports itself and that is missing is another matter.
    """
    here = str(Path.cwd())
    if not {"", here} & set(sys.path):
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if not f"{name}.".startswith(f"{missing}."):
            raise
        package, _, leaf = missing.rpartition(".")
        siblings = pkgutil.iter_modules(getattr(sys.modules.get(package), "__path__", []) if package else None)
        hint = did_you_mean(leaf, (module.name for module in siblings))
        raise InputError(
            f"expected a module that can be imported, got no module {missing!r}{hint or '; install it'}, "
            f"or run where the file lies (now {here})"
        ) from error


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of an error message: the known words that look like ``word``, or nothing.

    >>> did_you_mean("digit", ["digits", "location"])
    "; did you mean 'digits'?"
    >>> did_you_mean("zebra", ["digits", "location"])
    ''
    """
    close = [repr(match) for match in get_close_matches(word, list(known), n=3)]
    return f"; did you mean {' or '.join(close)}?" if close else ""
