"""The type checker of ``pytest --jaxtyping-packages=wemem,shapes.check``: shapes and types of arrays, nothing else.

Everything else is for mypy: tests pass a wrong type on purpose, to see that it is refused in one line.
"""

from collections.abc import Callable
from types import UnionType
from typing import Any, Union, get_args, get_origin

from beartype import BeartypeConf, BeartypeStrategy, beartype
from jaxtyping import AbstractArray

_BEARTYPE = beartype(conf=BeartypeConf(strategy=BeartypeStrategy.O1, is_pep484_tower=True))


def check(function: Callable[..., Any]) -> Any:
    """The function with those of its annotations checked that hold an array; a class is left to its ``__init__``."""
    if isinstance(function, type):
        return function
    own = dict(function.__annotations__)
    function.__annotations__ = {name: hint for name, hint in own.items() if holds_array(hint)}
    return _BEARTYPE(function)


def holds_array(hint: Any) -> bool:
    """Whether an annotation is an array with a shape, or a union or container of one."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    if get_origin(hint) in (Union, UnionType, list, tuple, dict) or hasattr(hint, "__origin__"):
        return any(holds_array(part) for part in get_args(hint) if part is not ...)
    return False
