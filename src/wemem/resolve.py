"""``"package.module:attribute"``: the names by which a study refers to code of the user's, and code
without a name.
"""

import importlib
import pkgutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from wemem.errors import InputError


@dataclass(frozen=True, eq=False, repr=False)
class Given:
    """An object of the user's that stands in place of its name, such as a function of a notebook or
    a closure.

    Args:
        name: the name in messages and results.
        value: the object itself.
        fingerprint: its content; nothing stored is shared between objects with different ones.
    """

    name: str
    value: object
    fingerprint: str

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return repr(self.name)


def resolve(spec: str | Given) -> object:
    """The object that a name refers to.

    The current directory is put first on the import path and stays there, as with ``python -m``, so
    that a file beside the study file can be named. An exception that the user's module raises while
    it is imported passes through with its traceback.

    Args:
        spec: the dotted module, a colon, and the attribute; a dotted attribute reaches into
            classes. A :class:`Given` is its own object.

    Raises:
        InputError: not of that form, no such module, or no such attribute in it.

    >>> resolve("math:floor")(2.5)
    2
    >>> resolve("math:flor")
    Traceback (most recent call last):
        ...
    wemem.errors.InputError: expected 'flor' in math, got no such name; did you mean 'floor'?
    """
    if isinstance(spec, Given):
        return spec.value
    module_name, colon, attribute = spec.partition(":")
    if not colon or not all(part.isidentifier() for part in f"{module_name}.{attribute}".split(".")):
        raise InputError(f"expected 'package.module:name', got {spec!r}; name a module and an attribute of it")
    target: object = import_module(module_name)
    where = module_name
    for part in attribute.split("."):
        if not hasattr(target, part):
            names = (name for name in dir(target) if not name.startswith("_"))
            raise InputError(f"expected {part!r} in {where}, got no such name{did_you_mean(part, names)}")
        target, where = getattr(target, part), f"{where}.{part}"
    return target


def import_module(name: str) -> ModuleType:
    """Import a module, from the current directory too.

    Raises:
        InputError: there is no such module; a missing module that it imports is not meant.
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
