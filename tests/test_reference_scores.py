"""Scores of reference models: by their own records, as the victim's are, or by a pool, which is no adaptive audit."""

from typing import Any

import numpy as np
import pytest

from small_study import table, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.data.split import Role
from wemem.errors import InputError
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.store import Store

SMALL: dict[str, Any] = {
    "training": {"epochs": 1, "batch_size": 64}, "finetune": {"epochs": 1, "batch_size": 64},
    "pruning": {"rounds": 2}, "scores": {"models": 6}, "attacks": ["confidence", "lira"], "defenses": ["rmr"],
}  # fmt: skip


def parties_of(folder: Any, how: str) -> Parties:
    study = table(write_data(folder), **SMALL, split={"shadows": 1, "references": 4, "reference_scores": how})
    config = parse_study(study)
    return Parties.of(Pipeline.open(config, config.data.load(), Store(folder / "store"), Silent()), 0)


def test_a_reference_model_is_scored_by_its_own_records_alone(tmp_path):
    parties = parties_of(tmp_path, "own")
    for model, scores in enumerate(parties.score_references(4)):
        train = parties.reference_split.records(model, Role.TRAIN)
        assert np.flatnonzero(~np.isnan(scores.memorization.score)).tolist() == train.tolist()
        subsets = parties.reference_subsets(model)
        seen = np.flatnonzero((subsets.roles == Role.TRAIN).any(0))
        assert seen.tolist() == train.tolist()
        assert len(subsets.records(0, Role.TRAIN)) == len(parties.subset_split("defender").records(0, Role.TRAIN))
        assert scores.models == parties.config.scores.models


def test_subsets_of_reference_models_are_drawn_apart(tmp_path):
    parties = parties_of(tmp_path, "own")
    assert len({parties.reference_subsets(model).fingerprint for model in range(4)}) == 4


def test_more_reference_models_change_no_score_of_the_first(tmp_path):
    parties = parties_of(tmp_path, "own")
    first = parties.score_references(2)
    assert [scores.key for scores in parties.score_references(4)[:2]] == [scores.key for scores in first]


def test_scores_by_a_pool_are_shared_by_all_reference_models(tmp_path):
    scores = parties_of(tmp_path, "pool").score_references(4)
    assert len({one.key for one in scores}) == 1


@pytest.mark.parametrize("how", ["own", "pool"])
def test_only_scoring_as_the_victim_is_scored_is_adaptive(how, tmp_path):
    study = table(write_data(tmp_path), **SMALL, split={"shadows": 1, "references": 4, "reference_scores": how})
    runs = {run["label"]: run for run in api.run(parse_study(study), tmp_path / "out")["runs"]}
    assert runs["dense"]["attacks"]["lira"]["adaptive"]
    assert runs["rmr"]["attacks"]["confidence"]["adaptive"]
    assert runs["rmr"]["attacks"]["lira"]["adaptive"] is (how == "own")
    others = runs["rmr"]["certificate"]["adversary_recipe_fingerprints"]
    assert any("scored otherwise" in recipe for recipe in others) is (how == "pool")


def test_another_way_to_score_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"reference_scores"):
        parse_study(table(write_data(tmp_path), split={"reference_scores": "none"}))
