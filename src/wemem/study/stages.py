"""The expensive stages of a study, each found in the store or computed and put there.

A stage's key is made of everything that determines it: the data, the split, the settings and the keys of the stages
before it. Nothing else is a reason to reuse, and nothing else a reason to compute again.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.defenses import Defense
from wemem.memorization import Memorization, estimate_memorization, halves_correlation, truth_values
from wemem.pruning import Pruning, Round, iterate
from wemem.randomness import derive_seed
from wemem.signals import query_models
from wemem.study.config import StudyConfig
from wemem.study.identity import identity
from wemem.study.progress import Progress
from wemem.study.store import Entry, Store, key
from wemem.training import Choice, Ensemble, History, Recipe, accuracy, fit

Arrays = Mapping[str, np.ndarray]
Computed = tuple[Arrays, dict[str, Any]]


@dataclass(frozen=True, eq=False)
class Stage:
    """What a stage left: an ensemble, how it got there, and the key under which it is stored."""

    key: str
    ensemble: Ensemble
    meta: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """Wall time when it was computed."""
        return float(self.meta["seconds"])


@dataclass(frozen=True, eq=False)
class Scores:
    """One party's memorization scores, how far they can be trusted, and what they cost."""

    key: str
    memorization: Memorization
    halves_correlation: float
    models: int
    seconds: float


class Stages:
    """Computes the stages of one study on one data set, through one store."""

    def __init__(self, config: StudyConfig, data: Dataset, store: Store, progress: Progress) -> None:
        self.config, self.data, self.store, self.progress = config, data, store, progress

    def blank(self, seeds: Sequence[int]) -> Ensemble:
        """Untrained models, each initialized from its seed."""
        init = [derive_seed(seed, "init") for seed in seeds]
        return Ensemble.initialize(self.config.model, self.data.input_shape, self.data.classes, init)

    def train(self, title: str, split: Split, seeds: Sequence[int]) -> Stage:
        """Dense models, trained from scratch on their train records."""
        recipe = self.config.training

        def compute() -> Computed:
            start = time.perf_counter()
            fitted = fit(
                self.blank(seeds), self.data, split, recipe, seeds=seeds, backend=self.config.backend,
                on_epoch=lambda epoch, running: self._show(epoch, recipe, running, 0, 1),
            )  # fmt: skip
            return fitted.ensemble.arrays(), {**_told(fitted.history, fitted.choice), "seconds": time.perf_counter() - start}

        own = key("dense", **self._common(split, seeds), recipe=asdict(recipe))
        entry = self._remember("dense", title, own, compute, _work(split, recipe))
        return Stage(own, self.blank(seeds).with_arrays(entry.arrays), entry.meta)

    def score(self, title: str, split: Split, seeds: Sequence[int]) -> Scores:
        """Memorization scores from subset models, which are kept: they are trained models that did not see a record."""
        subset = self.train(title, split, seeds)
        form, seed = self.config.scores.form, seeds[0]

        def compute() -> Computed:
            start = time.perf_counter()
            pool = np.flatnonzero((split.roles != Role.UNUSED).any(axis=0))
            values = np.full(split.roles.shape, np.nan)
            logits = subset.ensemble.logits(self.data.features[pool])
            values[:, pool] = truth_values(logits, self.data.labels[pool], form)
            found = estimate_memorization(values, split.roles)
            arrays = {name: getattr(found, name) for name in ("score", "standard_error", "inside", "outside")}
            trust = halves_correlation(values[:, pool], split.roles[:, pool], seed=seed)
            return arrays, {"halves_correlation": trust, "seconds": time.perf_counter() - start}

        own = key("scores", models=subset.key, split=split.fingerprint, form=form)
        entry = self._remember("scores", f"{title}: scores", own, compute, 0)
        found = Memorization(**{name: np.array(entry.arrays[name]) for name in entry.arrays})
        seconds = subset.seconds + float(entry.meta["seconds"])
        return Scores(own, found, float(entry.meta["halves_correlation"]), len(seeds), seconds)

    def prune(
        self,
        title: str,
        dense: Stage,
        split: Split,
        pruning: Pruning,
        defense: Defense,
        *,
        seeds: Sequence[int],
        scores: Sequence[Scores | None],
        keep_rounds: bool = False,
    ) -> list[Stage]:
        """The rounds of iterative pruning, each stored as it ends; only the last one's weights stay unless asked.

        Returns:
            All rounds if ``keep_rounds``, else the last alone. ``meta["rounds"]`` tells of every round so far.
        """
        keys = self._round_keys(dense, split, pruning, defense, seeds, scores)
        blank = self.blank(seeds)
        wanted = range(len(keys)) if keep_rounds else range(len(keys) - 1, len(keys))
        self.progress.begin(title, _work(split, pruning.recipe) * len(keys))
        stored = {r: entry for r in range(len(keys)) if (entry := self.store.get(keys[r])) is not None}
        complete = all(r in stored for r in wanted)
        if not complete:
            first = next(r for r in range(len(keys) - 1, -1, -1) if r == 0 or r - 1 in stored and self._kept(r, stored, keep_rounds))
            start = blank.with_arrays(stored[first - 1].arrays) if first else dense.ensemble
            self._run_rounds(keys, first, start, stored, split, pruning, defense, seeds, scores, blank, keep_rounds)
        self.progress.end(stored=complete)
        return [Stage(keys[r], blank.with_arrays(stored[r].arrays), stored[r].meta) for r in wanted]
