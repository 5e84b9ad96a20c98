"""Composition: the parts plan one after another, and at most one replaces the loss."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from wemem.data.batches import Group
from wemem.defenses.base import Defense, Undefended
from wemem.defenses.batch import Batch
from wemem.defenses.capabilities import Capability, combine
from wemem.defenses.training_records import TrainingRecords
from wemem.errors import InputError


@dataclass(frozen=True)
class Chain(Defense):
    """Several defenses as one. SWMR is ``Chain((SlidingWindow(...), MemoryRegularizer(...)))``.

    Args:
        parts: the defenses, in the order in which they plan an epoch.

    Raises:
        InputError: fewer than two parts, two parts of a kind, two parts that both decide a step's
            gradient or have a capability that cannot be combined, or equally named settings.
    """

    parts: tuple[Defense, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if len(names) < 2 or len(set(names)) < len(names):
            raise InputError(f"a chain needs two or more different defenses, got {' + '.join(names) or 'none'}")
        losses = [part.name for part in self.parts if part.replaces_loss]
        if len(losses) > 1:
            raise InputError(f"{losses[0]} and {losses[1]} both replace the loss; chain only one of them")
        combine(value for part in self.parts for value in part.capabilities)
        settings = [setting for part in self.parts for setting in part.settings]
        if len(set(settings)) < len(settings):
            twice = next(name for name in settings if settings.count(name) > 1)
            raise InputError(f"expected different settings in {' + '.join(names)}, got {twice!r} twice; rename one")

    @property
    def name(self) -> str:
        """``swmr`` for the paper's chain, else the parts' names joined by ``+``."""
        names = "+".join(part.name for part in self.parts)
        return "swmr" if names == "rsw+rmr" else names

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of all parts."""
        return {key: value for part in self.parts for key, value in part.settings.items()}

    @property
    def needs_scores(self) -> bool:
        """True if a part needs them."""
        return any(part.needs_scores for part in self.parts)

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """Capabilities of all parts, combined by type."""
        return combine(value for part in self.parts for value in part.capabilities)

    def epochs(self, most: int) -> int:
        """Smallest number of epochs among the parts."""
        return min(part.epochs(most) for part in self.parts)

    def plan(self, epoch: int, groups: tuple[Group, ...], records: TrainingRecords) -> tuple[Group, ...]:
        """Plan by one part after the other."""
        for part in self.parts:
            groups = part.plan(epoch, groups, records)
        return groups

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Loss of the part that replaces it, else the mean cross-entropy."""
        return next((part for part in self.parts if part.replaces_loss), Undefended()).loss(batch)

    @property
    def replaces_loss(self) -> bool:
        """True if a part replaces the loss."""
        return any(part.replaces_loss for part in self.parts)

    def incompatibility_reason(self, model: nn.Module) -> str | None:
        """Reason of the first part that has one."""
        return next((reason for part in self.parts if (reason := part.incompatibility_reason(model)) is not None), None)


def chain(*parts: Defense) -> Defense:
    """Compose defenses; one alone stays what it is.

    >>> from wemem.defenses import MemoryRegularizer, SlidingWindow
    >>> chain(SlidingWindow(), MemoryRegularizer()).name
    'swmr'
    """
    return parts[0] if len(parts) == 1 else Chain(parts)
