"""Classification of a pruning as one of the paper's scenarios, by a rule that is fixed in advance.

Three effects on leakage (:mod:`wemem.diagnosis.within_record`), each a difference of differences
that were randomized::

    reuse          typical records:    shown in every round  -  shown in one
    memorability   shown in one round: memorable records     -  typical records
    interaction    rise by both, beyond the sum of the two

The first is what would remain if no record were memorable, the second what would remain if no
record were reused. An effect *counts* if its whole interval lies above the smallest relevant
effect, is *excluded* if it lies below, and is *open* otherwise. The three intervals hold at once
with 95 % confidence (Bonferroni). Then

    reuse counts, memorability does not   ->  reuse, RSW
    memorability counts, reuse does not   ->  memorability, RMR
    both count, or only the interaction   ->  both, SWMR
    none counts                           ->  neither, nothing
"""

from dataclasses import dataclass
from typing import Literal

from wemem.defenses import make_defense
from wemem.metrics.intervals import Estimate

ScenarioName = Literal["reuse", "memorability", "both", "neither"]
EffectName = Literal["reuse", "memorability", "interaction"]
Decision = Literal["counts", "excluded", "open"]

DEFENSES: dict[ScenarioName, str | None] = {"reuse": "rsw", "memorability": "rmr", "both": "swmr", "neither": None}


@dataclass(frozen=True)
class Effect:
    """One of the three effects on leakage.

    Args:
        name: the name of the effect.
        estimate: the effect as a share (0.02 are 2 points), with its interval.
        relevant: the smallest effect that matters.
    """

    name: EffectName
    estimate: Estimate
    relevant: float

    @property
    def decision(self) -> Decision:
        """Decide by the ends of the interval whether the effect counts.

        >>> Effect("reuse", Estimate(0.1, 0.03, 0.17), relevant=0.02).decision
        'counts'
        >>> Effect("reuse", Estimate(0.0, -0.03, 0.03), relevant=0.02).decision
        'open'
        """
        if self.estimate.low > self.relevant:
            return "counts"
        return "excluded" if self.estimate.high < self.relevant else "open"


@dataclass(frozen=True)
class Scenario:
    """The three effects, with the scenario and the defense that follow from them."""

    reuse: Effect
    memorability: Effect
    interaction: Effect

    @property
    def effects(self) -> tuple[Effect, Effect, Effect]:
        """The three effects in a fixed order."""
        return self.reuse, self.memorability, self.interaction

    @property
    def name(self) -> ScenarioName:
        """The scenario by the rule above."""
        reuse, memorability, interaction = (effect.decision == "counts" for effect in self.effects)
        if reuse != memorability:
            return "reuse" if reuse else "memorability"
        return "both" if reuse or interaction else "neither"

    @property
    def defense(self) -> str | None:
        """The paper's defense for the scenario; None for ``neither``."""
        return DEFENSES[self.name]

    @property
    def snippet(self) -> str | None:
        """The defense as a table of a study file, with its default settings."""
        return None if self.defense is None else defense_table(self.defense)


def defense_table(kind: str) -> str:
    """A defense with its default settings as a table of a study file.

    >>> print(defense_table("rmr"))
    [[defenses]]
    kind = "rmr"
    top = 0.27
    decay = 0.1
    """
    settings = {name: value for name, value in make_defense(kind).settings.items() if value is not None}
    lines = [
        f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}" for name, value in settings.items()
    ]
    return "\n".join(["[[defenses]]", f'kind = "{kind}"', *lines])
