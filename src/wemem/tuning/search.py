"""Settings found from a budget: many tried cheaply, a few audited in full, the best confirmed on what none of it saw.

What is seen when::

    explore    the victim and 3 models of the defender's, fewer rounds, the confidence attack     tune half
    audit      all models of the defender's, every round, LiRA and RMIA in turn                   tune half
    confirm    the same audit of undefended pruning and of the chosen setting, on new models      confirm half

The halves are of the victim's held-out records. What the study then reports of the defense is judged on the confirm
half too, by the adversary's own models.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

from wemem.attacks.base import Attack
from wemem.defenses import Auto, Defense, Observation, OnlineController, Undefended, chain, make_defense
from wemem.defenses.online import at_strength
from wemem.errors import InputError
from wemem.pipeline.artifacts import Stage
from wemem.pipeline.cost import CostModel
from wemem.pipeline.parties import Parties
from wemem.pruning import Pruning
from wemem.store.keys import SearchKey
from wemem.store.shared_work import SharedWork
from wemem.tuning.objectives import (
    Figures,
    Point,
    excess,
    figures_in_words,
    finalists,
    front,
    point_of,
    ranked,
    sentence,
    settings_in_words,
)
from wemem.tuning.panel import IN_TURN, Panel, measure, panel_of
from wemem.tuning.space import STARTS, Tried

#: Models of a quick look, the victim among them.
QUICK_MODELS = 4
#: Shares of the minutes after which no further setting is explored, and none audited.
EXPLORE, AUDIT = 0.5, 0.9


Stopped = Literal["trials", "minutes", "user"]
Propose = Callable[[Sequence[Tried], Sequence[str], int, int], tuple[str, dict[str, Any]]]


@dataclass(frozen=True, eq=False)
class Found:
    """A defense in place of a budget.

    Args:
        defense: to prune with.
        budget: that was asked for.
        told: how it was found, for ``results.json``.
    """

    defense: Defense
    budget: Auto
    told: Mapping[str, Any]


def steered(found: Found, victim: Stage) -> Found:
    """The same, with what the victim's own run was steered to, where it steered itself."""
    if not isinstance(found.defense, OnlineController):
        return found
    rounds = tuple(Observation(**seen) for seen in victim.meta["observed"][0])
    strengths = [found.defense.strength(rounds[: r + 1]) for r in range(len(rounds))]
    words = f"strength {', '.join(f'{strength:g}' for strength in strengths)} of 1 in its rounds"
    if strengths[-1] > 0:
        settings = chain(*at_strength(strengths[-1])).settings
        words += f"; in the last one {settings_in_words('swmr', settings)}"
    return replace(found, told={**found.told, "settings_in_words": words})


def found_in_words(told: Mapping[str, Any]) -> list[str]:
    """How a defense was found, in sentences.

    Args:
        told: as it stands in ``results.json``.
    """
    budget = f"Budget: {told['budget_in_words']}."
    if told["mode"] == "online":
        return [f"{budget} One run that steers itself: {told['settings_in_words']}.", *_audited_in_words(told)]
    return [
        f"{budget} Found after {told['trials']} settings{STOPPED[told['stopped']]}: {told['settings_in_words']}.",
        f"On the records it was tuned on: {told['search']['words']}.",
        f"On records and models that the search never used: {told['confirmed']['words']}.",
        "The budget is met." if told["met"] else told["nearest"],
        *_audited_in_words(told),
        "The trade-offs it saw:",
        *(f"  {one['words']}" for one in told["front"]),
    ]


def _audited_in_words(told: Mapping[str, Any]) -> list[str]:
    if "audited" not in told:
        return []
    audited = told["audited"]
    drop, tpr, met = audited["accuracy_drop"], audited["tpr"], audited["met"]
    lost = "not known without an undefended run" if drop is None else f"{-100 * drop:+.1f} points"
    verdict = {True: "within the budget", False: "NOT within the budget", None: "no verdict"}[met]
    return [f"By the adversary's audit of the victim: accuracy {lost}, TPR {100 * tpr:.1f} %: {verdict}."]


STOPPED = {"trials": "", "minutes": " (the time was up)", "user": " (stopped by the user; the best so far)"}


def find_defense(parties: Parties, auto: Auto, pruning: Pruning, dense: Stage) -> Found:
    """The defense for a budget.

    Args:
        parties: the seed of a study, or one model with its records.
        auto: the budget.
        pruning: to the target sparsity.
        dense: the unpruned victim, first of its ensemble.

    Raises:
        InputError: records or classes too few for any of the defenses that may be chosen.
    """
    if auto.searches:
        return Search(parties, auto, pruning, dense).run()
    controller = auto.controller()
    words = "window, risky share and decay follow the gap between train and dev confidence"
    return Found(controller, auto, {**_asked(auto), "settings": controller.settings, "settings_in_words": words})


def _asked(auto: Auto) -> dict[str, Any]:
    budget = {name: getattr(auto, name) for name in ("max_accuracy_drop", "max_tpr", "at_fpr", "minutes")}
    return {"mode": auto.mode, "budget": budget, "budget_in_words": sentence(auto)}


class Search:
    """One search. All that it learns is in the store; the object holds what it has heard of that."""

    def __init__(self, parties: Parties, auto: Auto, pruning: Pruning, dense: Stage) -> None:
        self.parties, self.auto, self.pruning, self.dense = parties, auto, pruning, dense
        self.propose = proposer()
        self.panel = panel_of(parties, dense, parties.tune, "search", auto.models)
        self.points: dict[str, dict[int, Point]] = {"try": {}, "audit": {}}  # by what was done, and number
        self.seconds: dict[tuple[str, int], float] = {}
        self.problems: list[str] = []
        self.shown: list[Point] = []  # the front that was told of last

    def run(self) -> Found:
        """Explore, audit, confirm; an interrupt ends the first two early."""
        try:
            stopped = self._audit(self._explore())
        except KeyboardInterrupt:
            if not self.points["try"]:
                raise
            stopped = "user"
            self.parties.stages.progress.tell(
                "search stopped: going on with the best so far; interrupt again to end here"
            )
        known = list((self.points["audit"] or self.points["try"]).values())
        if not known:
            raise InputError(f"expected a defense that fits, got none; the first of the reasons: {self.problems[0]}")
        return self._confirm(ranked(self.auto, known)[0], front(known), stopped)

    def _explore(self) -> Stopped:
        """Try settings until there are enough of them or the time is up; why it ended."""
        rounds, models = quick(self.pruning), min(QUICK_MODELS, len(self.panel))
        plain = self._measure(Undefended(), rounds, models, (), "undefended")
        work = self._work("try", self.auto.trials, pruning=rounds, models=models, candidates=self.auto.families)
        self._hear("try", work)
        for number in work.claims():
            self._hear("try", work)
            if self.seconds and self._spent > EXPLORE * 60 * self.auto.minutes:
                return "minutes"
            tried = [Tried(p.kind, p.settings, p.accuracy_drop, p.leakage) for p in self.points["try"].values()]
            kind, settings = self.propose(tried, self.auto.families, number, self.parties.seed)
            title = f"try {number + 1} of {self.auto.trials}: {kind}"
            self._do(work, number, kind, settings, plain, rounds, models, (), title)
            self._hear("try", work)
            self._tell_front()
        self._hear("try", work)
        return "trials"

    def _audit(self, explored: Stopped) -> Stopped:
        """The most promising in full, one at least, until all are done or the time is up."""
        chosen = finalists(self.auto, list(self.points["try"].values()))
        if not chosen:
            return explored
        plain = self._measure(Undefended(), self.pruning, len(self.panel), IN_TURN, "undefended in full")
        settings = [{"kind": point.kind, **point.settings} for point in chosen]
        work = self._work("audit", len(chosen), pruning=self.pruning, models=len(self.panel), candidates=settings)
        for number in work.claims():
            self._hear("audit", work)
            if self.points["audit"] and self._spent > AUDIT * 60 * self.auto.minutes:
                return "minutes"
            point, title = chosen[number], f"audit {number + 1} of {len(chosen)}: {chosen[number].kind}"
            self._do(work, number, point.kind, point.settings, plain, self.pruning, len(self.panel), IN_TURN, title)
        self._hear("audit", work)
        return explored

    def _confirm(self, best: Point, seen: Sequence[Point], stopped: Stopped) -> Found:
        """The chosen setting again, on records and models that the search never used."""
        fresh = panel_of(self.parties, self.dense, self.parties.confirm, "confirm", self.auto.models)
        defense = make_defense(best.kind, best.settings)
        plain, found = (
            self._measure(own, self.pruning, len(fresh), IN_TURN, f"confirm {own.name}", fresh)
            for own in (Undefended(), defense)
        )
        confirmed = point_of(best.kind, best.settings, found, plain, "full")
        over = excess(self.auto, confirmed)
        told = {
            **_asked(self.auto),
            "kind": best.kind,
            "settings": defense.settings,
            "settings_in_words": settings_in_words(best.kind, defense.settings),
            "front": [_told(point) for point in seen],
            "met": over == 0,
            "nearest": f"The budget is NOT met: this is the nearest that was found, {100 * over:.1f} points beyond it.",
            "search": _told(best),
            "confirmed": _told(confirmed),
            "trials": len(self.points["try"]),
            "stopped": stopped,
            "seconds": self._spent + fresh.seconds + plain.seconds + found.seconds,
        }
        return Found(defense, self.auto, {name: value for name, value in told.items() if name != "nearest" or over > 0})

    def _work(
        self, step: Literal["try", "audit"], count: int, *, pruning: Pruning, models: int, candidates: Sequence[Any]
    ) -> SharedWork:
        own = SearchKey(step, self.panel.key, models, pruning, candidates, self.auto.at_fpr, self.parties.seed)
        return SharedWork(self.parties.stages.store, own.key(), count)

    def _do(
        self, work: SharedWork, number: int, kind: str, settings: Mapping[str, Any], plain: Figures, pruning: Pruning,
        models: int, attacks: Sequence[Attack], title: str,
    ) -> None:  # fmt: skip
        """One piece of work: a setting measured, or why it cannot be."""
        start, point, problem = time.perf_counter(), None, None
        try:
            found = self._measure(make_defense(kind, settings), pruning, models, attacks, title)
            point = point_of(kind, settings, found, plain, "full" if attacks else "quick").as_json()
        except InputError as error:
            problem = str(error)
        told = {"point": point, "problem": problem, "seconds": time.perf_counter() - start}
        self.parties.stages.store.put(work.key(number), {}, told)

    def _measure(
        self, defense: Defense, pruning: Pruning, models: int, attacks: Sequence[Attack], title: str,
        panel: Panel | None = None,
    ) -> Figures:  # fmt: skip
        return measure(
            self.parties.stages, panel or self.panel, defense, pruning, title=self.parties.title(title), models=models,
            attacks=attacks, fpr=self.auto.at_fpr, seed=self.parties.seed,
        )  # fmt: skip

    def _hear(self, what: str, work: SharedWork) -> None:
        """What is done, by this process or another."""
        for number, entry in work.done().items():
            self.seconds[what, number] = float(entry.meta["seconds"])
            if entry.meta["point"] is not None:
                self.points[what][number] = Point(**entry.meta["point"])
            elif entry.meta["problem"] not in self.problems:
                self.problems.append(entry.meta["problem"])
        self.points[what] = dict(sorted(self.points[what].items()))

    @property
    def _spent(self) -> float:
        """Seconds of work, of all processes."""
        return self.panel.seconds + sum(self.seconds.values())

    def _tell_front(self) -> None:
        """The front so far, where it has changed."""
        now = front(list(self.points["try"].values()))
        if now != self.shown:
            self.shown = now
            self.parties.stages.progress.tell(
                f"front after {len(self.points['try'])} settings, accuracy against undefended and AUC: "
                + "; ".join(f"{p.kind} {-100 * p.accuracy_drop:+.1f} {100 * p.leakage:.1f} %" for p in now)
            )


def proposer() -> Propose:
    """What proposes settings. The library that it needs is an extra.

    Raises:
        InputError: it is not there.
    """
    try:
        from wemem.tuning.sampler import propose
    except ImportError as error:
        raise InputError(f"a search for settings needs Optuna, got {error}; pip install 'wemem[auto]'") from error
    return propose


def quick(pruning: Pruning) -> Pruning:
    """The same pruning in about half of the rounds, two at least."""
    rounds = pruning.schedule.rounds
    return replace(pruning, schedule=replace(pruning.schedule, rounds=min(rounds, max(2, (rounds + 1) // 2))))


def _told(point: Point) -> dict[str, Any]:
    setting = make_defense(point.kind, point.settings).settings
    return {**point.as_json(), "words": f"{settings_in_words(point.kind, setting)}: {figures_in_words(point)}"}


def search_work(cost: CostModel, auto: Auto) -> float:
    """Work of one search for one seed, in the measure of :class:`~wemem.pipeline.cost.CostModel`.

    Each defense that may be tried is taken to be tried as often as the others, at its usual settings.
    """
    config = cost.config
    usual = [make_defense(kind, STARTS[kind]) for kind in auto.families]

    def fine_tuning(models: int, undefended: int, defended: int, pruning: Pruning) -> float:
        alone = cost.fine_tuning(models, Undefended(), pruning)
        return undefended * alone + defended * fmean(cost.fine_tuning(models, own, pruning) for own in usual)

    everyone = 1 + auto.models
    pruning = config.pruning.to(config.pruning.sparsities[0], config.finetune)
    tries = fine_tuning(QUICK_MODELS, 1, auto.trials, quick(pruning))
    audits = fine_tuning(everyone, 2, auto.finalists + 1, pruning)
    # the models that look quickly, those that audit and those that confirm have teachers of their own
    teachers = sum(cost.teaching(QUICK_MODELS + 2 * everyone, own) for own in usual)
    dense = cost.dense(2 * max(config.scores.models, auto.models) * config.scores.fraction)
    return dense + teachers + (tries + audits) * len(config.pruning.sparsities)
