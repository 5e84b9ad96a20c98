"""WeMem: prune a neural network iteratively without making it memorize, and measure what it leaks."""

from importlib.metadata import version

from wemem.api import run_into
from wemem.attacks import ATTACKS, Attack, make_attack
from wemem.audit.report import AuditReport, audit
from wemem.config.attack_entries import make_attacks
from wemem.config.study import StudyConfig, load_study, parse_study
from wemem.data.dataset import Dataset
from wemem.data.sources import DataSource, load_dataset
from wemem.data.split import Role, Split, given_victim, random_halves, subsets, victim_and_shadows
from wemem.defenses import Defense, MemoryRegularizer, SlidingWindow, Undefended, chain, make_defense
from wemem.errors import InputError
from wemem.export.checkpoint import load_pruned
from wemem.export.footprint import Footprint, footprint
from wemem.export.sparse import read_sparse
from wemem.memorization import Memorization, estimate_memorization, read_scores
from wemem.models import CustomModel, FullyConnected
from wemem.pruning import Pruning, Schedule, iterate
from wemem.signals import Signals
from wemem.study.run import run_study
from wemem.training import Ensemble, Recipe, fit

__version__ = version("wemem")

__all__ = [
    "ATTACKS", "Attack", "AuditReport", "CustomModel", "DataSource", "Dataset", "Defense", "Ensemble", "Footprint",
    "FullyConnected", "InputError", "Memorization", "MemoryRegularizer", "Pruning", "Recipe", "Role", "Schedule",
    "Signals", "SlidingWindow", "Split", "StudyConfig", "Undefended", "audit", "chain", "estimate_memorization", "fit",
    "footprint", "given_victim", "iterate", "load_dataset", "load_pruned", "load_study", "make_attack",
    "make_attacks", "make_defense",
    "parse_study", "random_halves", "read_scores", "read_sparse", "run_into", "run_study", "subsets",
    "victim_and_shadows",
]  # fmt: skip
