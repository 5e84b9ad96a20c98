"""Settings that steer themselves: SWMR whose strength follows the model, round by round.

Before each round the model's *gap* is observed: its mean confidence on training records minus that
on dev records. One number, the strength ``s`` in [0, 1], determines the settings::

    width = 1 - 0.9 s        top = 0.7 s        decay = 5e-4 * 600^s

The strength follows the gap ``g_r``, its growth, and the accuracy ``a_r`` on ``n`` dev records::

    s_0 = (g_0 - max_gap) / 0.2                                            the dense model
    s_r = s_{r-1} + 1/4   if g_r + max(0, g_r - g_{r-1}) > max_gap         gap too large, or about to be
    s_r = s_{r-1} - 1/4   if a_r < a_0 - max_accuracy_drop - e             too much accuracy lost
    e   = sqrt(a_0 (1 - a_0) / n)                                          standard error of a_0

in steps of one quarter, kept in [0, 1]. Once it has been lowered it is never raised again, so that
it turns at most once and cannot oscillate. ``a_0`` is the accuracy of the dense model: the
undefended pruned model, from which a budget counts, does not exist in such a run.

No other model is needed. Every victim, shadow and reference model is steered by its own
observations, so that an adversary who knows the rule makes models as the victim was made. The rule
is ours.
"""

from dataclasses import dataclass, replace
from math import sqrt

from wemem.data.batches import Group
from wemem.defenses.base import Defense
from wemem.defenses.capabilities import Capability, RoundObservation
from wemem.defenses.memory_regularizer import MemoryRegularizer
from wemem.defenses.sliding_window import SlidingWindow
from wemem.defenses.training_records import Observation, TrainingRecords
from wemem.errors import InputError

#: The strength moves in steps of one over this.
STEPS = 4
#: A gap this far above the aim takes the full strength at once.
FULL = 0.2


@dataclass(frozen=True)
class OnlineController(Defense):
    """A sliding window and memory regularization whose strength follows gap and accuracy.

    Args:
        max_accuracy_drop: largest loss of dev accuracy from the dense model, as a fraction; None
            sets no bound.
        max_gap: intended gap between mean train and dev confidence, in [0, 1].

    Raises:
        InputError: a value out of range.

    >>> dense, sure = Observation(0.7, 0.6, 0.7, 400), Observation(0.8, 0.6, 0.7, 400)
    >>> poor = Observation(0.7, 0.6, 0.6, 400)
    >>> [OnlineController().strength((dense, sure, poor)[:r]) for r in (1, 2, 3)]
    [0.5, 0.75, 0.5]
    """

    max_accuracy_drop: float | None = 0.01
    max_gap: float = 0.0

    def __post_init__(self) -> None:
        if self.max_accuracy_drop is not None and not 0 <= self.max_accuracy_drop <= 1:
            raise InputError(f"max_accuracy_drop must be a fraction in [0, 1], got {self.max_accuracy_drop}")
        if not 0 <= self.max_gap <= 1:
            raise InputError(f"max_gap must be in [0, 1], got {self.max_gap}")

    @property
    def name(self) -> str:
        return "online"

    @property
    def needs_scores(self) -> bool:
        return True

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        return (RoundObservation(),)

    def strength(self, rounds: tuple[Observation, ...]) -> float:
        """Strength in the last of these rounds, in [0, 1]; 0 if there is none."""
        level, falling = 0, False
        for r, now in enumerate(rounds):
            if r == 0:
                level = round(STEPS * (now.gap - self.max_gap) / FULL)
            elif self._too_costly(rounds[0], now):
                level, falling = level - 1, True
            elif not falling and now.gap + max(0.0, now.gap - rounds[r - 1].gap) > self.max_gap:
                level += 1
            level = min(STEPS, max(0, level))
        return level / STEPS

    def _too_costly(self, first: Observation, now: Observation) -> bool:
        if self.max_accuracy_drop is None:
            return False
        error = sqrt(first.dev_accuracy * (1 - first.dev_accuracy) / first.dev_records)
        return now.dev_accuracy < first.dev_accuracy - self.max_accuracy_drop - error

    def plan(self, epoch: int, groups: tuple[Group, ...], records: TrainingRecords) -> tuple[Group, ...]:
        """Cut the groups by window and risk at this round's strength; not at all at strength 0."""
        strength = self.strength(records.rounds)
        if strength == 0:
            return groups
        window, regularizer = at_strength(strength)
        split = regularizer.plan(epoch, window.plan(epoch, groups, records), records)
        # models at other strengths step with other decays, so their groups need optimizers of their
        # own
        return tuple(g if g.weight_decay is None else replace(g, key=f"{g.key} {g.weight_decay:.4g}") for g in split)


def at_strength(strength: float) -> tuple[SlidingWindow, MemoryRegularizer]:
    """Settings of a strength in (0, 1].

    >>> at_strength(1.0)
    (SlidingWindow(width=0.1, stride=0.0375, order='low_first'), MemoryRegularizer(top=0.7, threshold=None, decay=0.3))
    """
    width, decay = round(1 - 0.9 * strength, 4), round(5e-4 * 600**strength, 6)
    return SlidingWindow(width=width), MemoryRegularizer(top=round(0.7 * strength, 4), decay=decay)
