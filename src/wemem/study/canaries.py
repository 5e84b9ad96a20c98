"""Reference models with canaries for a given victim, which was trained without them.

Where the study trains the victim, its own reference models have the canaries, and nothing more is
trained. A given victim keeps reference models without canaries, so that its audit does not change.
"""

from collections.abc import Sequence

from wemem.defenses import Defense
from wemem.pipeline.parties import Parties
from wemem.pipeline.query import Releases
from wemem.pruning import Pruning


def dense_canaries(parties: Parties) -> Sequence[Releases]:
    """Unpruned reference models with canaries; none where the study's own have them."""
    return [[models] for models in parties.with_canaries.references_of("dense")] if _needed(parties) else ()


def pruned_canaries(
    parties: Parties, label: str, defense: Defense, pruning: Pruning, *, every_release: bool = False
) -> Sequence[Releases]:
    """Reference models with canaries pruned under an arm's defense; none where the study's own have
    them.
    """
    if not _needed(parties):
        return ()
    return parties.with_canaries.pruned_references(label, defense, pruning, every_release=every_release)


def _needed(parties: Parties) -> bool:
    return bool(parties.config.canaries) and parties.planted is None
