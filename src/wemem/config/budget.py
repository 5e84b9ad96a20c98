"""A budget in place of a defense's settings: how much accuracy may be lost, and how much may leak.

It stands in a study's ``[[defenses]]`` as ``kind = "auto"``. Before any pruning under it the study
replaces it by a defense: one whose settings a search found (``mode = "search"``), or an
:class:`~wemem.defenses.online.OnlineController` that aims at the budget (``mode = "online"``).
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from wemem.defenses import OnlineController
from wemem.errors import InputError

#: The kind under which a study names a budget.
KIND = "auto"

Mode = Literal["search", "online"]
Family = Literal["rsw", "rmr", "swmr", "oosd"]
FAMILIES: tuple[Family, ...] = ("swmr", "oosd", "rsw", "rmr")


@dataclass(frozen=True)
class Budget:
    """Bounds on lost accuracy and on leakage, and how to find a defense that keeps them.

    Args:
        mode: ``search`` tries settings; ``online`` is one pruning run that steers itself.
        max_accuracy_drop: largest loss of accuracy from undefended pruning, as a fraction; 0.01 if
            neither bound is given.
        max_tpr: largest true positive rate of the strongest attack at ``at_fpr``.
        at_fpr: false positive rate of ``max_tpr``.
        minutes: work that a search may take, summed over all processes that share it, without the
            confirmation at its end.
        trials: settings that a search tries, if there is time.
        finalists: settings among them that are audited in full.
        models: models that the defender trains for these audits, besides the victim.
        families: kinds of defense that a search may choose among.

    Raises:
        InputError: a value out of range.

    >>> Budget().max_accuracy_drop, Budget(max_tpr=0.05).max_accuracy_drop
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
        """True if settings are searched for, on records that no attack is then evaluated on."""
        return self.mode == "search"

    @property
    def settings(self) -> dict[str, Any]:
        """Fields by name, as they stand in a study."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def controller(self) -> OnlineController:
        """Defense of mode ``online``, for which the confidence gap stands in for the TPR."""
        aim = 0.0 if self.max_tpr is None else max(0.0, self.max_tpr - self.at_fpr)
        return OnlineController(self.max_accuracy_drop, aim)
