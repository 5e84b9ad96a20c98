"""A study whose split is not possible is refused before any training, with one that is."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from small_study import table
from wemem.config.override import override_key
from wemem.config.parse import parse_study
from wemem.data.dataset import Dataset
from wemem.errors import InputError, TooFewRecordsError
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.store import Store
from wemem.study.feasibility import auditable_parties


def blobs(*counts: int) -> Dataset:
    labels = np.repeat(np.arange(len(counts)), counts)
    features = np.random.default_rng(0).normal(labels[:, None], 1, (len(labels), 3))
    return Dataset.from_arrays("blobs", features, labels)


def check(folder, study, data: Dataset) -> None:
    auditable_parties(Pipeline.open(parse_study(study), data, Store(folder / "store"), Silent()), 0)


def refusal(folder, study, data: Dataset) -> str | None:
    """The message about too few records; None if the study is possible."""
    try:
        check(folder, study, data)
    except TooFewRecordsError as error:
        return str(error)
    return None


def study_of(folder, **changed):
    own = {"attacks": ["confidence", "lira"], "model": {"kind": "fc", "hidden": [4]}}
    return table(folder / "blobs.npz", **own, **changed)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(6, 40), min_size=2, max_size=3),
    st.sampled_from([0.2, 0.4, 0.6, 0.8]),
    st.sampled_from([2, 4, 8]),
)
def test_proposed_split_is_possible(tmp_path_factory, counts, train, references):
    folder, data = tmp_path_factory.mktemp("small"), blobs(*counts)
    split = {"shadows": 2, "train": train, "references": references}
    study = study_of(folder, defenses=["undefended"], split=split)
    message = refusal(folder, study, data)
    if message is None or "No split near this one is possible: class" in message:
        return
    proposed = re.findall(r"--set (\S+=\d+(?:\.\d+)?)", message)
    assert proposed
    for setting in proposed:
        override_key(study, setting)
    check(folder, study, data)


def test_message_states_what_the_proposed_split_can_measure(tmp_path):
    message = r"--set split.dev=0.2. The victim then trains on 9 records and is audited on 3 others, .* FPR of 33 %"
    with pytest.raises(InputError, match=message):
        check(tmp_path, study_of(tmp_path, defenses=["undefended"]), blobs(10, 10, 10))


def test_class_too_rare_for_every_split_is_named(tmp_path):
    with pytest.raises(InputError, match=r"No split is possible: class '1' has 5 of 45 records, .* needs at least 6"):
        check(tmp_path, study_of(tmp_path, defenses=["undefended"]), blobs(40, 5))


def test_scores_of_a_small_data_set_are_planned_too(tmp_path):
    study = study_of(tmp_path, defenses=["swmr"], split={"shadows": 2, "train": 0.3, "dev": 0.2, "references": 4})
    with pytest.raises(TooFewRecordsError, match="A split that is possible: --set"):
        check(tmp_path, study, blobs(12, 12, 12))


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.6, 0.85])
@pytest.mark.parametrize("count", [2, 4, 6, 8, 10, 16, 30])
def test_accepted_reference_models_cover_every_audited_record(tmp_path, share, count):
    split = {"shadows": 1, "train": share, "dev": 0.1, "references": count}
    study = study_of(tmp_path, defenses=["undefended"], split=split)
    data = blobs(60, 50)
    if (message := refusal(tmp_path, study, data)) is not None:
        assert "--set split." in message
        return
    parties = Parties.of(Pipeline.open(parse_study(study), data, Store(tmp_path / "store"), Silent()), 0)
    roles = parties.reference_split.roles[:, parties.split.audited(0)]
    assert min((roles == 1).sum(0).min(), (roles == 3).sum(0).min()) >= 2


def test_quickstart_is_covered_under_the_ten_attacks(tmp_path):
    from wemem.api import read_study

    config = read_study("studies/quickstart.toml", ["attacks='ten'"])
    auditable_parties(Pipeline.open(config, config.data.load(), Store(tmp_path), Silent()), config.seeds[0])
