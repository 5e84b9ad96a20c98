"""Reference models with canaries for a given victim, which was trained without them.

Where the study trains the victim, its own reference models have the canaries, and nothing more is
trained. A given victim keeps reference models without canaries, so that its audit does not change.
"""

from collections.abc import Sequence

from wemem.defenses import Defense
from wemem.pipeline.artifacts import TrainedModels
from wemem.pipeline.parties import Parties
from wemem.pruning import Pruning


def dense_canaries(parties: Parties) -> Sequence[TrainedModels]:
    """Train unpruned reference models with canaries; none where the study's own have them."""
    return parties.with_canaries.train_references_of("dense") if _needed(parties) else ()


def pruned_canaries(parties: Parties, label: str, defense: Defense, pruning: Pruning) -> Sequence[TrainedModels]:
    """Prune reference models with canaries under an arm's defense; none where the study's own have
    them.
    """
    return parties.with_canaries.prune_references(label, defense, pruning) if _needed(parties) else ()


def _needed(parties: Parties) -> bool:
    return bool(parties.config.canaries) and parties.planted is None
