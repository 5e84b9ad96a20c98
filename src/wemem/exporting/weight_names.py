"""The names of weights, from the names that a file gives them to those of the model.

The rules, in their order:

* A prefix is removed if all tensors of the model are in the file under it: ``module.`` and
  ``_orig_mod.`` of wrappers, ``model.`` of Lightning, ``state_dict.`` of nested dictionaries, or any
  other. Two prefixes that both fit are refused.
* Tensors without that prefix are no part of the model, and are left out.
* Counters of profilers, numbers of positions and of batches are left out where the model has none,
  since they change no output; a missing number of batches is 0.
* A tied weight may stand in the file under one of its names, or under all, which then agree.

Any other difference is refused. Every change is noted.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from wemem.errors import InputError

#: Names of tensors that change no output of a model.
IDLE = ("num_batches_tracked", "position_ids", "total_ops", "total_params")
#: Names that a message shows.
SHOWN = 3


def with_names_of(
    module: nn.Module, state: Mapping[str, Tensor], path: Path, note: Callable[[str], object]
) -> dict[str, Tensor]:
    """The tensors of a file under the names of a model.

    Args:
        module: the model.
        state: the tensors by their names in the file.
        path: the file, for messages.
        note: receives one line for each change.

    Raises:
        InputError: two prefixes fit, or tied names hold different tensors.
    """
    tied = _tied_names(module)
    prefix = _prefix(tied, state, path)
    if prefix:
        note(f"the names in {path} begin with {prefix!r}, as a wrapper saves them; the prefix is removed")
    renamed = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    expected = {name for names in tied for name in names}
    idle = [name for name in renamed if name not in expected and name.rpartition(".")[2] in IDLE]
    if left := [*(name for name in state if not name.startswith(prefix)), *(f"{prefix}{name}" for name in idle)]:
        shown = ", ".join(left[:SHOWN]) + (f" and {len(left) - SHOWN} more" if len(left) > SHOWN else "")
        note(f"{path} holds tensors that are no part of the model and are left out: {shown}")
    for name in idle:
        del renamed[name]
    return _with_counters(module, _with_tied(tied, renamed))


def _prefix(tied: list[list[str]], state: Mapping[str, Tensor], path: Path) -> str:
    """The prefix under which a file holds all tensors of a model; none if no prefix does."""
    needed = [names for names in tied if names[0].rpartition(".")[2] not in IDLE]
    if not needed or all(any(name in state for name in names) for names in needed):
        return ""
    first = needed[0]
    prefixes = {known.removesuffix(name) for known in state for name in first if known.endswith(f".{name}")}
    fitting = [p for p in sorted(prefixes) if all(any(f"{p}{name}" in state for name in names) for names in needed)]
    if len(fitting) > 1:
        raise InputError(
            f"expected one model in {path}, got one under {fitting[0]!r} and one under {fitting[1]!r}; save one of "
            "them alone"
        )
    return fitting[0] if fitting else ""


def _tied_names(module: nn.Module) -> list[list[str]]:
    """All names of each tensor of a model."""
    names: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), []).append(name)
    return list(names.values())


def _with_tied(groups: list[list[str]], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with every name of a tied weight of which the file has at least one name."""
    for tied in groups:
        present = [name for name in tied if name in state]
        if any(not torch.equal(state[name], state[present[0]]) for name in present[1:]):
            raise InputError(f"expected one tensor under the tied names {', '.join(tied)}, got different ones")
        state |= {name: state[present[0]] for name in tied if present}
    return state


def _with_counters(module: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with a count of 0 for each missing number of batches."""
    counters = {name: t for name, t in module.state_dict().items() if name.endswith("num_batches_tracked")}
    return state | {name: torch.zeros_like(t) for name, t in counters.items() if name not in state}
