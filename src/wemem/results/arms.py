"""Arms of a study: each is a defense at one sparsity, with estimates over its seeds."""

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

#: Kinds of control arms: the dense model, the same fine-tuning without pruning, and one-shot
#: pruning.
CONTROLS = ("dense", "unpruned", "one_shot")


@dataclass(frozen=True, eq=False)
class Arm:
    """Runs of ``results.json`` that share a label and a sparsity, one for each seed.

    Their settings are equal, unless a search for a budget chose others for another seed.

    Args:
        label: the label of the defense with its settings.
        defense: the kind of the defense. ``dense`` is the model before pruning. ``auto`` is a
            budget for which the searches chose different kinds.
        sparsity: the sparsity that was reached, to a tenth of a per cent.
        runs: the runs, at least one.
    """

    label: str
    defense: str
    sparsity: float
    runs: tuple[Run, ...]

    @property
    def is_control(self) -> bool:
        """True for an arm that defenses and undefended pruning are compared with."""
        return self.defense in CONTROLS

    @cached_property
    def attacks(self) -> tuple[str, ...]:
        """Labels of the attacks, in the order of the study."""
        return tuple(dict.fromkeys(name for run in self.runs for name in run["attacks"]))

    @property
    def whole_model_sparsity(self) -> float | None:
        """The share of all parameters that pruning removed, over the seeds; None in results that do
        not state it.
        """
        shares = [run["whole_model_sparsity"] for run in self.runs if "whole_model_sparsity" in run]
        return float(np.mean(shares)) if shares else None

    def accuracy(self) -> Estimate:
        """Test accuracy over the seeds."""
        return over_seeds([_estimate(run["accuracy"]["test"], run["accuracy"]["test_ci"]) for run in self.runs])

    def measure(self, attack: str, metric: str, level: float = 0.95) -> Estimate:
        """A metric of one attack over the seeds; ``metric`` is a name of the metric registry."""
        audits = [run["attacks"][attack] for run in self.runs if attack in run["attacks"]]
        return over_seeds([_measured(audit, metric) for audit in audits], level)

    def strongest(self, metric: str) -> tuple[str, Estimate]:
        """The attack with the highest mean, and its estimate.

        The interval is widened by Bonferroni's correction, because the attack was selected among
        all. Where all seeds agree, the interval spans the widened intervals of the runs.
        """
        if len(self.runs) == 1 and metric in self.runs[0]["worst"]:
            worst = self.runs[0]["worst"][metric]
            return worst["attack"], _estimate(worst["value"], worst["ci"])
        name = max(self.attacks, key=lambda attack: self.measure(attack, metric).value)
        ends = [_widened(run, name, metric) for run in self.runs if name in run["attacks"]]
        return name, over_seeds(ends, corrected_level(0.95, len(self.attacks)))

    def chance(self, metric: str) -> Chance | None:
        """The chance level of the strongest attack: its value on models that leak nothing.

        Over ``s`` seeds it is the mean of the runs' chance levels. That is at least the chance
        level of the attack with the highest mean. The distance to the upper end shrinks by
        ``sqrt(s)``, as for a mean of ``s`` runs.

        Returns:
            None where the results have no chance level.
        """
        chances = [run["worst"].get(metric, {}) for run in self.runs]
        if any("chance" not in one or "chance_high" not in one for one in chances):
            return None
        expected, high = (float(np.mean([one[end] for one in chances])) for end in ("chance", "chance_high"))
        return Chance(expected, expected + (high - expected) / float(np.sqrt(len(chances))))

    def leaks(self, metric: str) -> bool:
        """True if the strongest attack exceeds chance.

        On the victim, the value of the strongest attack is compared with the upper end of its
        chance level. Over leave-one-out targets, the lower end of its interval is compared with the
        chance level of a single attack. Results without a stored chance level leak if the interval
        of every run lies above the chance level of a single attack. The interval over seeds is not
        used for that, since it is too wide with few seeds.
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
        """True if the arm leaks by any metric; a leak may show in one metric alone."""
        return any(self.leaks(metric.name) for metric in metrics_for("file", audits_of([self])))

    def strongest_by_seed(self, metric: str, attacks: Sequence[str]) -> dict[int, float]:
        """The value of the strongest of some attacks, by seed, for the runs that have them all."""
        return {
            run["seed"]: max(_measured(run["attacks"][name], metric).value for name in attacks)
            for run in self.runs
            if all(name in run["attacks"] for name in attacks)
        }

    def helpers(self, attack: str) -> frozenset[int]:
        """The number of other models that helped an attack, over the runs that have it."""
        return frozenset(run["attacks"][attack]["reference_models"] for run in self.runs if attack in run["attacks"])

    def leave_one_out_attacks(self, metric: str) -> tuple[str, ...]:
        """Labels of the leave-one-out attacks for which every run has a metric."""
        runs = [run.get("leave_one_out") or {} for run in self.runs]
        return tuple(name for name in runs[0] if all(metric in one.get(name, ()) for one in runs))

    def leave_one_out(self, metric: str) -> tuple[str, Estimate, int] | None:
        """The strongest attack over all leave-one-out targets, its estimate, and the number of
        targets.
        """
        measured = {name: self.over_targets(name, metric) for name in self.leave_one_out_attacks(metric)}
        if not measured:
            return None
        name = max(measured, key=lambda attack: measured[attack].value)
        return name, measured[name], sum(run["leave_one_out"][name]["targets"] for run in self.runs)

    def over_targets(self, attack: str, metric: str) -> Estimate:
        """A metric of one attack over all leave-one-out targets."""
        audits = [run["leave_one_out"][attack][metric] for run in self.runs]
        return over_seeds([_estimate(audit["value"], audit["ci"]) for audit in audits])

    @property
    def answers_only(self) -> bool:
        """True if the defense alters answers to queries, and so does not protect the weights.

        Results of version 1 lack the field; ``hamp`` was the only such defense then.
        """
        return any(run.get("altered_answers", run["defense"] == "hamp") for run in self.runs)

    def adaptive(self, attack: str) -> bool:
        """True if, in every run, the adversary's models were trained as the target was."""
        return all(run["attacks"][attack]["adaptive"] for run in self.runs if attack in run["attacks"])

    def seconds(self, of: str) -> float | None:
        """Mean of a field of ``seconds`` over the runs that have it; None if no run has."""
        known = [run["seconds"][of] for run in self.runs if run["seconds"].get(of) is not None]
        return float(np.mean(known)) if known else None


def audits_of(rows: Sequence[Arm]) -> list[Mapping[str, Any]]:
    """The ``attacks`` entries of all runs of some arms."""
    return [audit for arm in rows for run in arm.runs for audit in run["attacks"].values()]


def arms(results: Mapping[str, Any]) -> list[Arm]:
    """The arms of ``results.json``, by label in order of appearance, then by rising sparsity."""
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
        InputError: a label is unknown; the message suggests the most similar one.
    """
    known = list(dict.fromkeys(arm.label for arm in rows))
    for label in labels:
        if label not in known:
            raise InputError(f"expected a label among {', '.join(known)}, got {label!r}{did_you_mean(label, known)}")


def over_seeds(estimates: Sequence[Estimate], level: float = 0.95) -> Estimate:
    """Combine the estimates of several runs, one for each seed.

    One run keeps its interval. Several give their mean with Student's t interval over the seeds,
    cut to [0, 1]. Where all values are equal, as when an attack identifies no member, their spread
    is no measure of uncertainty. The interval then reaches from the lowest to the highest end of
    the runs' intervals.

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
        InputError: the results do not have the metric.
    """
    estimate = METRICS[metric].read(audit)
    if estimate is None:
        raise InputError(f"expected results with {METRICS[metric].label}, got some without; run the study again")
    return estimate


def _widened(run: Run, attack: str, metric: str) -> Estimate:
    """An attack on one run; its interval covers the widened one of that run's strongest attack."""
    measured, worst = _measured(run["attacks"][attack], metric), run["worst"].get(metric)
    low, high = (measured.low, measured.high) if worst is None else worst["ci"]
    return Estimate(measured.value, min(measured.low, low), max(measured.high, high))


def _estimate(value: float, ends: Sequence[float]) -> Estimate:
    return Estimate(value, ends[0], ends[1])
