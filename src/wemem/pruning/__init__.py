"""Iterative magnitude pruning with exact masks."""

from wemem.pruning.importance import prunable_parameters, prune, sparsity_of
from wemem.pruning.iterate import Pruning, Round, iterate
from wemem.pruning.schedule import Schedule

__all__ = ["Pruning", "Round", "Schedule", "iterate", "prunable_parameters", "prune", "sparsity_of"]
