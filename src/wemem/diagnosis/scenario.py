"""Which of the paper's three scenarios a pruning is in, by a rule that is stated before anything is measured.

Three effects on leakage (:mod:`wemem.diagnosis.within_record`), each a difference of differences that were randomized::

    reuse          typical records:    shown in every round  -  shown in one
    memorability   shown in one round: memorable records     -  typical records
    together       what both add beyond the sum of the two

The first is what would remain if no record were memorable, the second what would remain if no record were reused. An
effect *counts* if its whole interval lies above the smallest relevant effect, is *excluded* if it lies below, and is
*open* otherwise. The three intervals hold at once with 95 % confidence (Bonferroni). Then

    reuse counts, memorability does not   ->  reuse, RSW
    memorability counts, reuse does not   ->  memorability, RMR
    both count, or only ``together``      ->  both, SWMR
    none counts                           ->  neither, nothing
"""

from dataclasses import dataclass
from typing import Literal

from wemem.defenses import make_defense
from wemem.metrics.intervals import Estimate

ScenarioName = Literal["reuse", "memorability", "both", "neither"]
EffectName = Literal["reuse", "memorability", "together"]
AttackOutput = Literal["counts", "excluded", "open"]

DEFENSES: dict[ScenarioName, str | None] = {"reuse": "rsw", "memorability": "rmr", "both": "swmr", "neither": None}


@dataclass(frozen=True)
class Effect:
    """One of the three effects on leakage, as a share (0.02 are 2 points), and what the rule says of it."""

    name: EffectName
    estimate: Estimate
    relevant: float

    @property
    def verdict(self) -> AttackOutput:
        """By the ends of its interval.

        >>> Effect("reuse", Estimate(0.1, 0.03, 0.17), relevant=0.02).verdict
        'counts'
        >>> Effect("reuse", Estimate(0.0, -0.03, 0.03), relevant=0.02).verdict
        'open'
        """
        if self.estimate.low > self.relevant:
            return "counts"
        return "excluded" if self.estimate.high < self.relevant else "open"


@dataclass(frozen=True)
class Scenario:
    """The three effects and what follows from them."""

    reuse: Effect
    memorability: Effect
    together: Effect

    @property
    def effects(self) -> tuple[Effect, Effect, Effect]:
        """All three."""
        return self.reuse, self.memorability, self.together

    @property
    def name(self) -> ScenarioName:
        """Which scenario it is."""
        reuse, memorability, together = (effect.verdict == "counts" for effect in self.effects)
        if reuse != memorability:
            return "reuse" if reuse else "memorability"
        return "both" if reuse or together else "neither"

    @property
    def defense(self) -> str | None:
        """The paper's defense for it; None where nothing needs one."""
        return DEFENSES[self.name]

    @property
    def snippet(self) -> str | None:
        """That defense as a study file has it, at the settings it has by default."""
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
