"""The roles of the victim and its shadows in a study, and the training records of the victim."""

import numpy as np
from jaxtyping import Int64

from wemem.config.study import StudyConfig
from wemem.data.dataset import Dataset
from wemem.data.given_victim import given_victim
from wemem.data.split import Role, Split, victim_and_shadows
from wemem.exporting.checkpoint import dev_records
from wemem.exporting.shards import weights_path
from wemem.files.record_tables import read_members

Records = Int64[np.ndarray, " _"]


def training_records(config: StudyConfig, data: Dataset, split: Split) -> Records:
    """The records that the victim of a split was trained on, audited or not."""
    return (
        split.records(0, Role.TRAIN)
        if config.victim is None
        else read_members(config.victim.members, len(data), data.ids)
    )


def study_split(config: StudyConfig, data: Dataset, seed: int) -> Split:
    """Roles of the victim and its shadows, drawn by the study or around a given victim."""
    settings = config.split
    if config.victim is None:
        return victim_and_shadows(
            data.labels, settings.shadows, seed=seed, train=settings.train, dev=settings.dev
        )  # fmt: skip
    data.require_all_records("members")
    return given_victim(
        data.labels, read_members(config.victim.members, len(data), data.ids), settings.shadows, seed=seed,
        train=settings.train, dev=settings.dev, adversary_share=config.victim.adversary_share,
        dev_records=np.array(dev_records(weights_path(config.victim.weights)), np.int64),
    )  # fmt: skip
