"""Search for settings within a budget: try many, audit a few in full, measure the best again.

Three steps, each on its own records and models::

    explore    the victim and 3 models of the defender's, fewer rounds, the confidence attack     tune half
    audit      all models of the defender's, every round, LiRA and RMIA as well                   tune half
    confirm    undefended pruning and the chosen setting again, with new models                   confirm half

The halves are of the records held out from the victim. The models of each step are trained on
random subsets of the victim's training records and of the half in question. The first two steps
measure on all of these records. The last one measures on the confirm half alone, on which nothing
was chosen, where it is large enough (:func:`wemem.tuning.panel.restricted`); elsewhere it measures
on all of them, and the summary says how many the search had used. In both cases its models are new.
Only they are: their training records other than the confirm half are those of the search.

The study's own audit of the chosen defense takes its non-members from the confirm half too. Its
members are the victim's training records, which the search used.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np

from wemem.attacks.base import Attack
from wemem.config.budget import Budget
from wemem.defenses import Defense, Observation, OnlineController, Undefended, make_defense
from wemem.errors import InputError
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.cost import CostModel
from wemem.pipeline.parties import Parties
from wemem.pipeline.stage import Stage
from wemem.pruning import Pruning
from wemem.store.keys import SearchKey
from wemem.store.shared_work import SharedWork
from wemem.tuning.objectives import Figures, Point, excess, finalists, front, point_of, ranked
from wemem.tuning.panel import REFERENCE_ATTACKS, Panel, measure, panel_of, restricted
from wemem.tuning.space import STARTS, Tried

#: Models of a quick measurement, the victim among them.
QUICK_MODELS = 4
#: Shares of the minutes after which no further setting is explored, and none audited.
EXPLORE, AUDIT = 0.5, 0.9


Stopped = Literal["trials", "minutes", "user"]
Propose = Callable[[Sequence[Tried], Sequence[str], int, int], tuple[str, dict[str, Any]]]


@dataclass(frozen=True, eq=False)
class TunedDefense:
    """A defense in place of a budget.

    Args:
        defense: the defense to prune with.
        budget: the budget in whose place it stands.
        summary: how it was found, for ``results.json``.
    """

    defense: Defense
    budget: Budget
    summary: Mapping[str, Any]

    def after(self, victim: TrainedModels) -> "TunedDefense":
        """Add the strengths of the victim's rounds to the summary, if its run steered itself.

        Args:
            victim: the last round of pruning, the victim first.
        """
        if not isinstance(self.defense, OnlineController):
            return self
        rounds = tuple(Observation(**seen) for seen in victim.meta["observed"][0])
        strengths = [self.defense.strength(rounds[: r + 1]) for r in range(len(rounds))]
        return replace(self, summary={**self.summary, "strengths": strengths})


def tune_defense(
    parties: Parties, budget: Budget, pruning: Pruning, dense: Stage[TrainedModels]
) -> TunedDefense:  # fmt: skip
    """Find a defense for a budget.

    Args:
        parties: the seed of a study, or one model with its records.
        budget: bounds, and how to search.
        pruning: pruning to the target sparsity.
        dense: the unpruned victim, first of its ensemble.

    Raises:
        InputError: records or classes too few for any of the defenses that may be chosen.
    """
    if budget.searches:
        return Search(parties, budget, pruning, dense.result()).run()
    controller = budget.controller()
    return TunedDefense(controller, budget, {**_budget_summary(budget), "settings": controller.settings})


def _budget_summary(budget: Budget) -> dict[str, Any]:
    bounds = {name: getattr(budget, name) for name in ("max_accuracy_drop", "max_tpr", "at_fpr", "minutes")}
    return {"mode": budget.mode, "budget": bounds}


class Search:
    """One search. Every result is in the store; the object holds copies of those that it has read."""

    def __init__(self, parties: Parties, budget: Budget, pruning: Pruning, dense: TrainedModels) -> None:
        self.parties, self.budget, self.pruning, self.dense = parties, budget, pruning, dense
        self.propose = proposer()
        self.panel = panel_of(parties, dense, parties.tuning_records, "search", budget.models)
        self.points: dict[str, dict[int, Point]] = {"try": {}, "audit": {}}  # by step and number
        self.seconds: dict[tuple[str, int], float] = {}
        self.problems: list[str] = []
        self.reported_front: list[Point] = []

    def run(self) -> TunedDefense:
        """Explore, audit, confirm; an interrupt ends the first two early."""
        try:
            stopped = self._audit(self._explore())
        except KeyboardInterrupt:
            if not self.points["try"]:
                raise
            stopped = "user"
            self.parties.pipeline.cache.progress.tell(
                "search stopped: going on with the best so far; interrupt again to end here"
            )
        known = list((self.points["audit"] or self.points["try"]).values())
        if not known:
            raise InputError(f"expected a defense that fits, got none; the first of the reasons: {self.problems[0]}")
        return self._confirm(ranked(self.budget, known)[0], front(known), stopped)

    def _explore(self) -> Stopped:
        """Try settings until there are enough of them or the time is up, and return which it was."""
        rounds, models = quick(self.pruning), min(QUICK_MODELS, len(self.panel))
        plain = self._measure(Undefended(), rounds, models, (), "undefended")
        work = self._work("try", self.budget.trials, pruning=rounds, models=models, candidates=self.budget.families)
        self._read("try", work)
        for number in work.claims():
            self._read("try", work)
            if self.seconds and self._spent > EXPLORE * 60 * self.budget.minutes:
                return "minutes"
            tried = [Tried(p.kind, p.settings, p.accuracy_drop, p.leakage) for p in self.points["try"].values()]
            kind, settings = self.propose(tried, self.budget.families, number, self.parties.seed)
            title = f"try {number + 1} of {self.budget.trials}: {kind}"
            self._do(work, number, kind, settings, plain, rounds, models, (), title)
            self._read("try", work)
            self._report_front()
        self._read("try", work)
        return "trials"

    def _audit(self, explored: Stopped) -> Stopped:
        """Audit the most promising settings in full, at least one, until the time is up."""
        chosen = finalists(self.budget, list(self.points["try"].values()))
        if not chosen:
            return explored
        models = len(self.panel)
        plain = self._measure(Undefended(), self.pruning, models, REFERENCE_ATTACKS, "undefended in full")
        settings = [{"kind": point.kind, **point.settings} for point in chosen]
        work = self._work("audit", len(chosen), pruning=self.pruning, models=models, candidates=settings)
        for number in work.claims():
            self._read("audit", work)
            if self.points["audit"] and self._spent > AUDIT * 60 * self.budget.minutes:
                return "minutes"
            point, title = chosen[number], f"audit {number + 1} of {len(chosen)}: {chosen[number].kind}"
            self._do(
                work, number, point.kind, point.settings, plain, self.pruning, models, REFERENCE_ATTACKS, title
            )  # fmt: skip
        self._read("audit", work)
        return explored

    def _confirm(self, best: Point, known: Sequence[Point], stopped: Stopped) -> TunedDefense:
        """Measure the chosen setting again with new models, on unused records if they suffice."""
        unused = self.parties.confirmation_records
        fresh = panel_of(self.parties, self.dense, unused, "confirm", self.budget.models)
        fresh = restricted(fresh, unused, self.budget.at_fpr)
        defense = make_defense(best.kind, best.settings)
        plain, defended = (
            self._measure(one, self.pruning, len(fresh), REFERENCE_ATTACKS, f"confirm {one.name}", fresh)
            for one in (Undefended(), defense)
        )
        confirmed = point_of(best.kind, best.settings, defended, plain, "full")
        summary = {
            **_budget_summary(self.budget),
            "kind": best.kind,
            "settings": defense.settings,
            "front": [point.as_json() for point in known],
            "met": excess(self.budget, confirmed) == 0,
            "search": best.as_json(),
            "confirmed": confirmed.as_json(),
            "confirmed_on": {
                "records": defended.records,
                "new_records": int(np.isin(fresh.evaluated, unused).sum()),
            },
            "trials": len(self.points["try"]),
            "stopped": stopped,
            "seconds": self._spent + fresh.seconds + plain.seconds + defended.seconds,
        }
        return TunedDefense(defense, self.budget, summary)

    def _work(
        self, step: Literal["try", "audit"], count: int, *, pruning: Pruning, models: int, candidates: Sequence[Any]
    ) -> SharedWork:
        key = SearchKey(step, self.panel.key, models, pruning, candidates, self.budget.at_fpr, self.parties.seed)
        return SharedWork(self.parties.pipeline.cache.store, key.key(), count)

    def _do(
        self, work: SharedWork, number: int, kind: str, settings: Mapping[str, Any], plain: Figures, pruning: Pruning,
        models: int, attacks: Sequence[Attack], title: str,
    ) -> None:  # fmt: skip
        """Store one piece of work: a measured setting, or the reason why it cannot be measured."""
        start, point, problem = time.perf_counter(), None, None
        try:
            defended = self._measure(make_defense(kind, settings), pruning, models, attacks, title)
            point = point_of(kind, settings, defended, plain, "full" if attacks else "quick").as_json()
        except InputError as error:
            problem = str(error)
        meta = {"point": point, "problem": problem, "seconds": time.perf_counter() - start}
        self.parties.pipeline.cache.store.put(work.key(number), {}, meta)

    def _measure(
        self, defense: Defense, pruning: Pruning, models: int, attacks: Sequence[Attack], title: str,
        panel: Panel | None = None,
    ) -> Figures:  # fmt: skip
        return measure(
            self.parties.pipeline, panel or self.panel, defense, pruning, title=self.parties.title(title),
            models=models, attacks=attacks, fpr=self.budget.at_fpr, seed=self.parties.seed,
        )  # fmt: skip

    def _read(self, step: str, work: SharedWork) -> None:
        """Read the pieces of work that are done, by this process or another."""
        for number, entry in work.done().items():
            self.seconds[step, number] = float(entry.meta["seconds"])
            if entry.meta["point"] is not None:
                self.points[step][number] = Point(**entry.meta["point"])
            elif entry.meta["problem"] not in self.problems:
                self.problems.append(entry.meta["problem"])
        self.points[step] = dict(sorted(self.points[step].items()))

    @property
    def _spent(self) -> float:
        """Seconds of work, of all processes."""
        return self.panel.seconds + sum(self.seconds.values())

    def _report_front(self) -> None:
        """Report the front so far, if it has changed."""
        now = front(list(self.points["try"].values()))
        if now != self.reported_front:
            self.reported_front = now
            self.parties.pipeline.cache.progress.tell(
                f"front after {len(self.points['try'])} settings, accuracy against undefended and AUC: "
                + "; ".join(f"{p.kind} {-100 * p.accuracy_drop:+.1f} {100 * p.leakage:.1f} %" for p in now)
            )


def proposer() -> Propose:
    """Import the function that proposes settings, whose library is an extra.

    Raises:
        InputError: the library is not installed.
    """
    try:
        from wemem.tuning.sampler import propose
    except ImportError as error:
        raise InputError(f"a search for settings needs Optuna, got {error}; pip install 'wemem[auto]'") from error
    return propose


def quick(pruning: Pruning) -> Pruning:
    """Same pruning in about half of the rounds, at least two."""
    rounds = pruning.schedule.rounds
    return replace(pruning, schedule=replace(pruning.schedule, rounds=min(rounds, max(2, (rounds + 1) // 2))))


def search_work(cost: CostModel, budget: Budget) -> float:
    """Work of one search for one seed, in the measure of :class:`~wemem.pipeline.cost.CostModel`.

    All kinds of defense are assumed to be tried equally often, at their usual settings.
    """
    config = cost.config
    usual = [make_defense(kind, STARTS[kind]) for kind in budget.families]

    def fine_tuning(models: int, undefended: int, defended: int, pruning: Pruning) -> float:
        alone = cost.fine_tuning(models, Undefended(), pruning)
        return undefended * alone + defended * fmean(cost.fine_tuning(models, own, pruning) for own in usual)

    everyone = 1 + budget.models
    pruning = config.pruning.to(config.pruning.sparsities[0], config.finetune)
    tries = fine_tuning(QUICK_MODELS, 1, budget.trials, quick(pruning))
    audits = fine_tuning(everyone, 2, budget.finalists + 1, pruning)
    # the models of quick measurements, those of audits and those that confirm have teachers of
    # their own
    teachers = sum(cost.teaching(QUICK_MODELS + 2 * everyone, own) for own in usual)
    dense = cost.dense(2 * max(config.scores.models, budget.models) * config.scores.fraction)
    return dense + teachers + (tries + audits) * len(config.pruning.sparsities)
