"""A study as a value: everything that determines its results, apart from the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from wemem.attacks.base import Attack
from wemem.attacks.channels import Adversary
from wemem.config.budget import Budget
from wemem.config.controls import CONTROLS, Control, control_schedule
from wemem.config.settings import (
    PruningSettings,
    ScoreSettings,
    SelectionSettings,
    SplitSettings,
    VictimSettings,
    require_different,
)
from wemem.data.canaries import require_count
from wemem.data.sources import DataSource, LoadedData
from wemem.defenses import Defense, Undefended
from wemem.errors import InputError
from wemem.models import Model
from wemem.pruning import Pruning
from wemem.signals import MASKS, SignalLayout
from wemem.store.fingerprint import spelled
from wemem.training import DENSE, FINETUNE, Recipe, choose_device
from wemem.training.backends import REQUESTS

#: Reference models where the study names no number: of an audit, and where several defenses are
#: compared by an attack that estimates spreads.
FEW_REFERENCES, MANY_REFERENCES = 16, 64
#: Seeds of a study with several defenses that names none. Three find a true difference of 10 points
#: between 13 arms in 27 % of the cases, five in 99 %.
COMPARED_SEEDS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class StudyConfig:
    """All settings of a study.

    Args:
        data: source of the records.
        model: the architecture.
        defenses: each with a label that is unique in the study; where it is to be selected from a
            grid, its first setting.
        budgets: by label, the budgets for which a defense is found.
        attacks: by label, the attacks that audit each of them.
        seeds: one whole repetition per seed.
        name: of the study.
        backend: ``auto``, ``vmapped``, ``sequential`` or ``compiled``.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.
        non_adaptive: also report the adversary whose shadows were pruned without the defense.
        leave_one_out: also attack every reference model with all others as references.
        canaries: number of records made to be memorized, of which every model trains on half
            (:mod:`wemem.data.canaries`); 0 for none.
        controls: the undefended arms that stand beside the defenses (:mod:`wemem.config.controls`).
        adversary: the most that the adversary has, ``weights`` or ``answers``; it matters for
            defenses that alter answers, which are attacked by the weights too unless the adversary
            has answers alone.
        grids: by label, the settings of which one is to be selected.
        references: by label, how many reference models, where that is not
            :attr:`reference_models`.
        split, scores, training, pruning, finetune, selection, victim: the tables of those names.
        table: the study as plain JSON-able values, for results.
    """

    data: DataSource | LoadedData
    model: Model
    defenses: Mapping[str, Defense]
    attacks: Mapping[str, Attack]
    seeds: tuple[int, ...] = (0,)
    name: str = "study"
    backend: str = "auto"
    device: str = "auto"
    non_adaptive: bool = False
    leave_one_out: bool = False
    canaries: int = 0
    controls: tuple[Control, ...] = CONTROLS
    adversary: Adversary = "weights"
    split: SplitSettings = field(default_factory=SplitSettings)
    scores: ScoreSettings = field(default_factory=ScoreSettings)
    training: Recipe = DENSE
    pruning: PruningSettings = field(default_factory=PruningSettings)
    finetune: Recipe = FINETUNE
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    grids: Mapping[str, tuple[Defense, ...]] = field(default_factory=dict)
    references: Mapping[str, int] = field(default_factory=dict)
    victim: VictimSettings | None = None
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    table: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.labels:
            raise InputError('a study needs at least one defense, got none; add [[defenses]] with kind = "undefended"')
        if not self.seeds:
            raise InputError("a study needs at least one seed, got none")
        require_different("seeds", self.seeds)
        require_different("controls", self.controls)
        for control in self.controls:
            if control in self.labels:
                raise InputError(
                    f"expected no defense labelled {control!r} beside the control of that name, got one; give it "
                    "another label, or leave the control out of controls"
                )
        if self.backend not in REQUESTS:
            raise InputError(f"backend must be one of {', '.join(REQUESTS)}, got {self.backend!r}")
        choose_device(self.device)
        self._require_canaries()
        self._require_access()
        # read the user's own sources now that they were imported, before they can be edited
        spelled([self.model, *self.every_defense, *self.attacks.values()])

    def _require_canaries(self) -> None:
        """Refuse canaries that no attack or no score can use."""
        require_count(self.canaries)
        if self.canaries and not self.uses("shared"):
            raise InputError(
                "expected an attack by reference models beside canaries, such as lira or rmia, got none; add one"
            )
        if self.canaries and self.needs_scores and not self.scores.as_victim:
            raise InputError(
                'expected scores.drawn_from = "own" and no scores.file beside canaries, got others; a file has no '
                "scores of canaries, and models of the whole pool train on every original of a twin"
            )

    def _require_access(self) -> None:
        """Refuse attacks on weights by an adversary who has answers alone."""
        for label, attack in self.attacks.items():
            if self.adversary == "answers" and MASKS in attack.required_signals:
                raise InputError(
                    f"expected attacks on answers beside adversary = 'answers', got {label!r}, which reads the "
                    "positions of pruned weights; leave it out, or set adversary = 'weights'"
                )

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all arms: the defenses, and after them the budgets."""
        return (*self.defenses, *self.budgets)

    @property
    def known_defenses(self) -> dict[str, Defense]:
        """Defenses of all arms but those whose settings are searched for, by label."""
        steered = {label: budget.controller() for label, budget in self.budgets.items() if not budget.searches}
        return {**self.defenses, **steered}

    @property
    def every_defense(self) -> tuple[Defense, ...]:
        """All defenses that are known before training, with all settings of the grids."""
        return (*self.known_defenses.values(), *(defense for grid in self.grids.values() for defense in grid))

    @property
    def searches(self) -> bool:
        """True if the settings of a defense are searched for."""
        return any(budget.searches for budget in self.budgets.values())

    @property
    def needs_scores(self) -> bool:
        """True if a defense reads memorization scores, or a search may choose one that does."""
        return self.searches or any(defense.needs_scores for defense in self.every_defense)

    @property
    def scored_references(self) -> int:
        """The number of reference models whose records are scored: the most of any arm that reads
        scores.
        """
        scored = [
            self.references_of(label)
            for label in self.labels
            if label in self.budgets or self.defenses[label].needs_scores
        ]
        return max(scored, default=0) if self.uses("shared") else 0

    def uses(self, layout: SignalLayout) -> bool:
        """True if an attack of the study works on signals of a layout."""
        return any(attack.layout == layout for attack in self.attacks.values())

    @property
    def prunings(self) -> tuple[Pruning, ...]:
        """The pruning of a defense's models to each of the target sparsities."""
        return tuple(self.pruning.to(sparsity, self.finetune) for sparsity in self.pruning.sparsities)

    @cached_property
    def arms(self) -> Sequence[tuple[str, Pruning]]:
        """Label and pruning of every arm in the order in which they run, controls first."""
        arms: list[tuple[str, Pruning]] = []
        for pruning in self.prunings:
            for control in self.controls:
                schedule = control_schedule(control, pruning.schedule)
                if schedule is not None and (arm := (control, replace(pruning, schedule=schedule))) not in arms:
                    arms.append(arm)
            arms += [(label, pruning) for label in self.labels]
        return arms

    def prunings_of(self, label: str) -> list[Pruning]:
        """The pruning of one arm's models to each of its sparsities."""
        return [pruning for name, pruning in self.arms if name == label]

    def defense_of(self, label: str) -> Defense:
        """Defense of an arm; :class:`Undefended` for a control and for a budget that was not yet
        searched.
        """
        return self.known_defenses.get(label, Undefended())

    @property
    def reference_models(self) -> int:
        """Number of reference models of every arm that names no other.

        It is that of the table ``[split]``. Where that names none, it is :data:`MANY_REFERENCES` if
        the study compares several defenses by an attack that estimates spreads (LiRA and its
        variants), else :data:`FEW_REFERENCES`. With 16 models such attacks find about a third less
        than with 64, and the loss differs between defenses.
        """
        if self.split.references is not None:
            return self.split.references
        compares = len(self.labels) > 1 and any(attack.estimates_spread for attack in self.attacks.values())
        return MANY_REFERENCES if compares else FEW_REFERENCES

    def references_of(self, label: str) -> int:
        """Number of reference models that attack an arm; for the dense model that of the largest.

        Controls are attacked by as many as undefended pruning, which they are compared with.
        """
        if label == "dense":
            return max(self.references_of(other) for other in self.labels)
        label = "undefended" if label in self.controls else label
        return self.references.get(label, self.reference_models)
