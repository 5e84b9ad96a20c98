"""The arms of a study, each a defense at one sparsity, with the estimates over its runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from wemem.errors import InputError
from wemem.metrics.intervals import Estimate, corrected_level, mean_interval
from wemem.metrics.null import Chance
from wemem.metrics.registry import METRICS, metrics_for
from wemem.resolve import did_you_mean

Run = Mapping[str, Any]

#: Kinds of arms that others are compared with: the model before pruning, the same rounds of fine-tuning without any
#: pruning, and pruning at once.
CONTROLS = ("dense", "unpruned", "one_shot")


@dataclass(frozen=True, eq=False)
class Arm:
    """The runs of ``results.json`` that differ only in their seed, and in the settings found for a budget.

    Args:
        label: the label of the defense with its settings.
        defense: its kind; ``dense`` is the model before pruning, ``auto`` a budget for which seeds found different
            kinds.
        sparsity: the sparsity that was reached, to a tenth of a per cent.
        runs: at least one.
    """

    label: str
    defense: str
    sparsity: float
    runs: tuple[Run, ...]

    @property
    def is_control(self) -> bool:
        """True if no defense and no undefended iterative pruning, but an arm that those are compared with."""
        return self.defense in CONTROLS

    @cached_property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks, in the order of the study."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run["attacks"]))

    def accuracy(self) -> Estimate:
        """Test accuracy."""
        return over_seeds([_estimate(run["accuracy"]["test"], run["accuracy"]["test_ci"]) for run in self.runs])

    def measure(self, attack: str, metric: str, level: float = 0.95) -> Estimate:
        """A metric of one attack, by its name in the registry."""
        audits = [run["attacks"][attack] for run in self.runs if attack in run["attacks"]]
        return over_seeds([_measured(audit, metric) for audit in audits], level)

    def strongest(self, metric: str) -> tuple[str, Estimate]:
        """The attack that is strongest on average; its interval is widened for having been chosen (Bonferroni).

        Where all seeds agree, the interval comes from the runs' own, and so does the widening.
        """
        if len(self.runs) == 1 and metric in self.runs[0]["worst"]:
            worst = self.runs[0]["worst"][metric]
            return worst["attack"], _estimate(worst["value"], worst["ci"])
        name = max(self.attacks, key=lambda attack: self.measure(attack, metric).value)
        ends = [_widened(run, name, metric) for run in self.runs if name in run["attacks"]]
        return name, over_seeds(ends, corrected_level(0.95, len(self.attacks)))

    def chance(self, metric: str) -> Chance | None:
        """The value that the strongest attack reaches on models that leak nothing; None where results lack it.

        Of ``s`` seeds the mean of the runs' expectations, which is at least that of the attack that is strongest on
        average, and an upper end that is nearer by ``sqrt(s)``, as that of a mean is.
        """
        stored = [run["worst"].get(metric, {}) for run in self.runs]
        if any("chance" not in one or "chance_high" not in one for one in stored):
            return None
        expected, high = (float(np.mean([one[end] for one in stored])) for end in ("chance", "chance_high"))
        return Chance(expected, expected + (high - expected) / float(np.sqrt(len(stored))))

    def leaks(self, metric: str) -> bool:
        """True if some attack finds more than it would on a model that leaks nothing.

        On the victim, the strongest attack is held against the upper end of its chance level. Over leave-one-out
        targets, the interval of the strongest attack is held against the chance level of a single one. Results without
        a stored chance level leak where every run's interval lies above that level: with few seeds the interval over
        seeds would hide what each run shows.
        """
        over_targets = self.leave_one_out(metric)
        if over_targets is not None and over_targets[1].low > METRICS[metric].chance:
            return True
        chance = self.chance(metric)
        if chance is None:
            return all(
                metric in run["worst"] and run["worst"][metric]["ci"][0] > METRICS[metric].chance for run in self.runs
            )
        return self.strongest(metric)[1].value > chance.high

    def leaks_by_any(self) -> bool:
        """True if the arm leaks by any metric; what one metric misses another may show."""
        return any(self.leaks(metric.name) for metric in metrics_for("file", audits_of([self])))

    def strongest_by_seed(self, metric: str, attacks: Sequence[str]) -> dict[int, float]:
        """The value of the strongest of some attacks in each run; arms are compared on the attacks that both have.

        Of a run whose answers are altered all attacks count: those that were added fit its channel.
        """
        return {
            run["seed"]: max(
                _measured(run["attacks"][name], metric).value
                for name in (run["attacks"] if run.get("altered_answers") else attacks)
            )
            for run in self.runs
            if all(name in run["attacks"] for name in attacks)
        }

    def leave_one_out_attacks(self, metric: str) -> tuple[str, ...]:
        """Names of the attacks on all leave-one-out targets for which every run has a metric."""
        runs = [run.get("leave_one_out") or {} for run in self.runs]
        return tuple(name for name in runs[0] if all(metric in one.get(name, ()) for one in runs))

    def leave_one_out(self, metric: str) -> tuple[str, Estimate, int] | None:
        """The attack that is strongest on all leave-one-out targets, its mean, and the number of targets."""
        by_attack = {}
        for name in self.leave_one_out_attacks(metric):
            runs = [run["leave_one_out"][name] for run in self.runs]
            estimate = over_seeds([_estimate(run[metric]["value"], run[metric]["ci"]) for run in runs])
            by_attack[name] = estimate, sum(run["targets"] for run in runs)
        if not by_attack:
            return None
        name = max(by_attack, key=lambda attack: by_attack[attack][0].value)
        return name, *by_attack[name]

    @property
    def answers_only(self) -> bool:
        """True if the defense protects answers to queries and not the weights.

        Results of version 1 do not have it; the one defense that did so then is known by its name.
        """
        return any(run.get("altered_answers", run["defense"] == "hamp") for run in self.runs)

    def adaptive(self, attack: str) -> bool:
        """True if the adversary's models were trained as the target was, in every run."""
        return all(run["attacks"][attack]["adaptive"] for run in self.runs if attack in run["attacks"])

    def seconds(self, of: str) -> float | None:
        """Mean over the runs that have it."""
        known = [run["seconds"][of] for run in self.runs if run["seconds"].get(of) is not None]
        return float(np.mean(known)) if known else None


def audits_of(rows: Sequence[Arm]) -> list[Mapping[str, Any]]:
    """The object of every attack on every run."""
    return [audit for arm in rows for run in arm.runs for audit in run["attacks"].values()]


def arms(results: Mapping[str, Any]) -> list[Arm]:
    """The arms of ``results.json``: labels in order of appearance, each from the lowest sparsity to the highest."""
    groups: dict[tuple[str, float], list[Run]] = {}
    for run in results["runs"]:
        groups.setdefault((run["label"], round(run["sparsity"], 3)), []).append(run)
    order = list(dict.fromkeys(label for label, _ in groups))
    return [
        Arm(label, _kind(groups[label, sparsity]), sparsity, tuple(groups[label, sparsity]))
        for label, sparsity in sorted(groups, key=lambda key: (order.index(key[0]), key[1]))
    ]


def _kind(runs: Sequence[Run]) -> str:
    kinds = {run["defense"] for run in runs}
    return str(runs[0]["defense"]) if len(kinds) == 1 else "auto"


def require_labels(rows: Sequence[Arm], labels: Sequence[str]) -> None:
    """Refuse a label that no arm has.

    Raises:
        InputError: a label is unknown; the message has the nearest one.
    """
    known = list(dict.fromkeys(arm.label for arm in rows))
    for label in labels:
        if label not in known:
            raise InputError(f"expected a label among {', '.join(known)}, got {label!r}{did_you_mean(label, known)}")


def over_seeds(estimates: Sequence[Estimate], level: float = 0.95) -> Estimate:
    """Shares of several runs as one: of a single run its own interval, of more Student's t over the seeds.

    The interval is cut to [0, 1]. Where all seeds agree to the last digit, as they do when an attack finds no member,
    their spread says nothing, and the interval reaches from the lowest to the highest end of the runs' own.

    >>> over_seeds([Estimate(0.0, 0.0, 0.1), Estimate(0.0, 0.0, 0.2)])
    Estimate(value=0.0, low=0.0, high=0.2)
    """
    if len(estimates) == 1:
        return estimates[0]
    values = np.array([e.value for e in estimates], np.float64)
    if np.ptp(values) == 0:
        return Estimate(float(values[0]), min(e.low for e in estimates), max(e.high for e in estimates))
    mean = mean_interval(values, level)
    return Estimate(mean.value, max(0.0, mean.low), min(1.0, mean.high))


def _measured(audit: Mapping[str, Any], metric: str) -> Estimate:
    """A metric of one attack on one run.

    Raises:
        InputError: the results do not have it.
    """
    found = METRICS[metric].read(audit)
    if found is None:
        raise InputError(f"expected results with {METRICS[metric].label}, got some without; run the study again")
    return found


def _widened(run: Run, attack: str, metric: str) -> Estimate:
    """An attack on one run, its interval reaching as far as the widened one of that run's strongest attack."""
    own, worst = _measured(run["attacks"][attack], metric), run["worst"].get(metric)
    low, high = (own.low, own.high) if worst is None else worst["ci"]
    return Estimate(own.value, min(own.low, low), max(own.high, high))


def _estimate(value: float, ends: Sequence[float]) -> Estimate:
    return Estimate(value, ends[0], ends[1])
