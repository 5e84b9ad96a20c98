"""WeMem: prune a neural network iteratively without making it memorize, and measure what it leaks.

A public name is imported when it is first used, so that ``import wemem`` takes milliseconds.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wemem import api
    from wemem.attacks import ATTACKS, Attack, make_attack
    from wemem.auditing.report import AuditReport, run_attacks
    from wemem.blocks import (
        DefenseBatchSampler,
        DefenseLoss,
        IterativePruner,
        PruningEngine,
        memorization_scores,
        out_of_sample_targets,
    )
    from wemem.config.attack_entries import make_attacks
    from wemem.config.parse import load_study, parse_study
    from wemem.config.study import StudyConfig
    from wemem.data.dataset import Dataset
    from wemem.data.given_victim import given_victim
    from wemem.data.preprocessing import Preprocessing
    from wemem.data.preprocessing_file import read_preprocessing
    from wemem.data.sources import DataSource, load_dataset
    from wemem.data.split import Role, Split, random_halves, subsets, victim_and_shadows
    from wemem.data.table_form import Column, TableForm
    from wemem.defenses import Defense, MemoryRegularizer, SlidingWindow, Undefended, chain, make_defense
    from wemem.errors import InputError
    from wemem.exporting.checkpoint import load_pruned
    from wemem.exporting.footprint import Footprint, footprint
    from wemem.exporting.sparse import read_sparse
    from wemem.memorization import Memorization, estimate_memorization, read_scores
    from wemem.models import CustomModel, FullyConnected
    from wemem.models.table import model_for, with_preprocessing
    from wemem.objects.commands import audit, compare, export, gate, prune, report, run
    from wemem.objects.diagnosing import diagnose
    from wemem.objects.outcome import (
        AuditResult,
        DiagnosisResult,
        ExportResult,
        GateResult,
        PruneResult,
        StudyResult,
    )
    from wemem.objects.plan import plan
    from wemem.objects.training import TrainResult, train
    from wemem.pruning import Pruning, Schedule, iterate
    from wemem.signals import Signals
    from wemem.study.run import run_study
    from wemem.training import Ensemble, Recipe, fit

    __version__: str

__all__ = [
    "ATTACKS", "Attack", "AuditReport", "AuditResult", "Column", "CustomModel", "DataSource", "Dataset", "Defense",
    "DefenseBatchSampler", "DefenseLoss", "DiagnosisResult", "Ensemble", "ExportResult", "Footprint",
    "FullyConnected", "GateResult", "InputError", "IterativePruner", "Memorization", "MemoryRegularizer",
    "Preprocessing", "PruneResult", "Pruning", "PruningEngine", "Recipe", "Role", "Schedule", "Signals",
    "SlidingWindow", "Split", "StudyConfig", "StudyResult", "TableForm", "TrainResult", "Undefended", "api", "audit",
    "chain", "compare", "diagnose", "estimate_memorization", "export", "fit", "footprint", "gate", "given_victim",
    "iterate", "load_dataset", "load_pruned", "load_study", "make_attack", "make_attacks", "make_defense",
    "memorization_scores", "model_for", "out_of_sample_targets", "parse_study", "plan", "prune", "random_halves",
    "read_preprocessing", "read_scores", "read_sparse", "report", "run", "run_attacks", "run_study", "subsets", "train",
    "victim_and_shadows", "with_preprocessing",
]  # fmt: skip

#: The module that defines each public name.
_HOMES = {
    "wemem.attacks": "ATTACKS Attack make_attack",
    "wemem.auditing.report": "AuditReport run_attacks",
    "wemem.blocks": "DefenseBatchSampler DefenseLoss IterativePruner PruningEngine memorization_scores "
    "out_of_sample_targets",
    "wemem.config.attack_entries": "make_attacks",
    "wemem.config.parse": "load_study parse_study",
    "wemem.config.study": "StudyConfig",
    "wemem.data.dataset": "Dataset",
    "wemem.data.sources": "DataSource load_dataset",
    "wemem.data.given_victim": "given_victim",
    "wemem.data.preprocessing": "Preprocessing",
    "wemem.data.preprocessing_file": "read_preprocessing",
    "wemem.data.split": "Role Split random_halves subsets victim_and_shadows",
    "wemem.data.table_form": "Column TableForm",
    "wemem.defenses": "Defense MemoryRegularizer SlidingWindow Undefended chain make_defense",
    "wemem.errors": "InputError",
    "wemem.exporting.checkpoint": "load_pruned",
    "wemem.exporting.footprint": "Footprint footprint",
    "wemem.exporting.sparse": "read_sparse",
    "wemem.memorization": "Memorization estimate_memorization read_scores",
    "wemem.models": "CustomModel FullyConnected",
    "wemem.models.table": "model_for with_preprocessing",
    "wemem.objects.commands": "audit compare export gate prune report run",
    "wemem.objects.diagnosing": "diagnose",
    "wemem.objects.plan": "plan",
    "wemem.objects.outcome": "AuditResult DiagnosisResult ExportResult GateResult PruneResult StudyResult",
    "wemem.objects.training": "TrainResult train",
    "wemem.pruning": "Pruning Schedule iterate",
    "wemem.signals": "Signals",
    "wemem.study.run": "run_study",
    "wemem.training": "Ensemble Recipe fit",
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        from importlib import import_module

        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("wemem")
        elif name == "api":
            value = import_module("wemem.api")
        elif name in _MODULES:
            value = getattr(import_module(_MODULES[name]), name)
        else:
            raise AttributeError(f"module 'wemem' has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULES, "__version__", "api"})
