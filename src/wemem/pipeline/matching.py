"""Recipe fingerprints that include the number of training records.

A model that was trained on fewer records memorizes more of each. Attacks that learn from models of
another size are not adaptive, whatever else their recipe has in common with the victim's.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from wemem.data.given_victim import matched
from wemem.data.split import Role, Split
from wemem.pipeline.parties import Parties
from wemem.signals import UNKNOWN


def sized(parties: Parties, recipes: Sequence[str], split: Split) -> tuple[str, ...]:
    """Fingerprints of models with their numbers of training records, a matched model's being the
    victim's.

    Args:
        parties: the seed of the study, whose victim is matched.
        recipes: the recipe fingerprint of each model.
        split: the roles of the records for each model.
    """
    return tuple(_sized(parties, recipe, split.records(k, Role.TRAIN)) for k, recipe in enumerate(recipes))


def sized_victim(parties: Parties, recipe: str) -> str:
    """The fingerprint of the victim with its number of training records."""
    return _sized(parties, recipe, parties.members)


def _sized(parties: Parties, recipe: str, train: np.ndarray) -> str:
    if recipe == UNKNOWN:
        return UNKNOWN
    members = parties.members
    if matched(parties.data.labels, members, train):
        return f"{recipe}:{len(members)}"
    return f"{recipe}:{len(train)}" + (":other classes" if len(train) == len(members) else "")


def unmatched_sizes(parties: Parties) -> Iterator[tuple[str, int]]:
    """The kind and number of training records of models that could not be matched to the victim."""
    splits = {"shadow models": (parties.split, range(1, parties.split.num_models))}
    if parties.config.uses("shared"):
        splits["reference models"] = (parties.reference_split, range(parties.reference_split.num_models))
    for kind, (split, models) in splits.items():
        trains = [split.records(k, Role.TRAIN) for k in models]
        if not all(matched(parties.data.labels, parties.members, train) for train in trains):
            yield kind, round(float(np.mean([len(train) for train in trains])))
