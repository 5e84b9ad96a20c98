"""Figures of results for experiment trackers: one interface, with a back end in a file each."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

Setting = str | int | float | bool


class RunLogger(ABC):
    """Receives the runs of results, one call for each."""

    @abstractmethod
    def log_run(
        self,
        name: str,
        settings: Mapping[str, Setting],
        figures: Mapping[str, float],
        curves: Mapping[str, Sequence[float]],
    ) -> None:
        """Log one run.

        Args:
            name: the study, the label, the sparsity and the seed.
            settings: the settings of the defense, and what the run was.
            figures: a number by its name, such as ``attacks/lira/auc``; rates are fractions.
            curves: values of one figure over the rounds of pruning, from round 0.
        """


def log_study(results: Mapping[str, Any], logger: RunLogger) -> int:
    """Log every run of results.

    Args:
        results: the content of ``results.json``.
        logger: the receiver.

    Returns:
        The number of runs.
    """
    study = str(results["study"].get("name", "study"))
    for run in results["runs"]:
        name = f"{study}/{run['label']}/sparsity{run['sparsity']:.3g}/seed{run['seed']}"
        settings = {"defense": run["defense"], "seed": run["seed"], "study_sha256": results["study_sha256"]}
        settings |= {f"settings.{key}": _setting(value) for key, value in run["settings"].items()}
        logger.log_run(name, settings, figures(run), curves(run))
    return len(results["runs"])


def figures(run: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a run by name: accuracy, every attack, the strongest attack and its chance.

    >>> figures({"sparsity": 0.5, "accuracy": {"test": 0.9}, "attacks": {"lira": {"auc": 0.7}}, "worst": {}})
    {'sparsity': 0.5, 'accuracy/test': 0.9, 'attacks/lira/auc': 0.7}
    """
    named = {"sparsity": run["sparsity"]}
    named |= {f"accuracy/{key}": value for key, value in run["accuracy"].items() if key in ("train", "dev", "test")}
    for attack, audit in run["attacks"].items():
        rates = {f"tpr_at_{fpr}": rate for fpr, rate in audit.get("tpr_at_fpr", {}).items()}
        rates |= {key: audit[key] for key in ("balanced_accuracy", "auc") if key in audit}
        named |= {f"attacks/{attack}/{key}": value for key, value in rates.items()}
    for metric, strongest in run.get("worst", {}).items():
        named |= {f"strongest/{metric}": strongest["value"], f"chance/{metric}": strongest["chance"]}
    return {key: float(value) for key, value in named.items() if value is not None}


def curves(run: Mapping[str, Any]) -> dict[str, list[float]]:
    """Figures that every round of pruning has, by name.

    >>> curves({"rounds": [{"round": 0, "sparsity": 0.0, "epochs": [3]}, {"round": 1, "sparsity": 0.5}]})
    {'rounds/sparsity': [0.0, 0.5]}
    """
    rounds = run.get("rounds") or [{}]
    names = [key for key, value in rounds[0].items() if isinstance(value, int | float) and key != "round"]
    return {
        f"rounds/{key}": [float(one[key]) for one in rounds]
        for key in names
        if all(isinstance(one.get(key), int | float) for one in rounds)
    }


def _setting(value: object) -> Setting:
    return value if isinstance(value, str | int | float | bool) else str(value)
