"""Iterative pruning: single weights by exact masks, or whole channels that are really removed."""

from wemem.pruning.channels import prune_channels
from wemem.pruning.importance import prunable_parameters, prune, sparsity_of
from wemem.pruning.iterate import Pruning, Round, iterate
from wemem.pruning.schedule import Schedule

__all__ = ["Pruning", "Round", "Schedule", "iterate", "prunable_parameters", "prune", "prune_channels", "sparsity_of"]
