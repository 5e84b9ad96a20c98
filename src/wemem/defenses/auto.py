"""A defense given by what it may cost and what may leak, in place of its settings; a study finds those.

It fine-tunes nothing by itself: before any pruning the study replaces it by the defense that it found (``search``) or
by an :class:`~wemem.defenses.online.OnlineController` that aims at the budget (``online``).
"""

from dataclasses import dataclass
from typing import Literal

from wemem.data.batches import Group
from wemem.defenses.base import Defense
from wemem.defenses.online import OnlineController
from wemem.defenses.training_records import TrainingRecords
from wemem.errors import InputError

Mode = Literal["search", "online"]
Family = Literal["rsw", "rmr", "swmr", "oosd"]
FAMILIES: tuple[Family, ...] = ("swmr", "oosd", "rsw", "rmr")


@dataclass(frozen=True)
class Auto(Defense):
    """A budget.

    Args:
        mode: ``search`` tries settings; ``online`` lets one pruning run steer itself.
        max_accuracy_drop: from the undefended pruned model, as a fraction; 0.01 where no budget is given at all.
        max_tpr: largest true positive rate of the strongest attack at ``at_fpr``.
        at_fpr: the false positive rate of ``max_tpr``.
        minutes: of work that a search may take, over all processes that share it, the last confirmation not counted.
        trials: settings that a search tries, if there is time.
        finalists: of them that are audited in full.
        models: that the defender trains to audit them with, besides the victim.
        families: the defenses that a search may choose among.

    Raises:
        InputError: a value out of range.

    >>> Auto().max_accuracy_drop, Auto(max_tpr=0.05).max_accuracy_drop
    (0.01, None)
    """

    mode: Mode = "search"
    max_accuracy_drop: float | None = None
    max_tpr: float | None = None
    at_fpr: float = 0.01
    minutes: float = 10.0
    trials: int = 40
    finalists: int = 6
    models: int = 7
    families: tuple[Family, ...] = FAMILIES

    @property
    def name(self) -> str:
        return "auto"

    @property
    def needs_scores(self) -> bool:
        return True

    def __post_init__(self) -> None:
        if self.max_accuracy_drop is None and self.max_tpr is None:
            object.__setattr__(self, "max_accuracy_drop", 0.01)
        if self.mode not in ("search", "online"):
            raise InputError(f"mode must be search or online, got {self.mode!r}")
        for field in ("max_accuracy_drop", "max_tpr", "at_fpr"):
            value = getattr(self, field)
            if value is not None and not 0 <= value < 1:
                raise InputError(f"{field} must be a fraction in [0, 1), got {value}; one point is 0.01")
        if self.at_fpr == 0:
            raise InputError("at_fpr must be above 0, got 0; the usual is 0.01")
        if not self.minutes > 0:
            raise InputError(f"minutes must be positive, got {self.minutes}")
        for field, least in (("trials", 1), ("finalists", 1), ("models", 3)):
            if getattr(self, field) < least:
                raise InputError(f"{field} must be at least {least}, got {getattr(self, field)}")
        if not self.families or len(set(self.families)) < len(self.families):
            raise InputError(f"families must name each defense once, at least one, got {list(self.families)}")

    @property
    def searches(self) -> bool:
        """True if its settings are searched for, on records that are then not judged by."""
        return self.mode == "search"

    def plan(self, epoch: int, groups: tuple[Group, ...], records: TrainingRecords) -> tuple[Group, ...]:
        """Refuse: a part of a chain is not replaced.

        Raises:
            InputError: always.
        """
        raise InputError("expected a defense to fine-tune with, got a budget; give kind = 'auto' alone, in no chain")

    def controller(self) -> OnlineController:
        """The defense of mode ``online``. What a member shows of itself bounds no attack's TPR; the gap stands in."""
        aim = 0.0 if self.max_tpr is None else max(0.0, self.max_tpr - self.at_fpr)
        return OnlineController(self.max_accuracy_drop, aim)
