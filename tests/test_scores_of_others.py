"""Scores of shadows and reference models: by their own records, as the victim's are, or by a pool, which is no adaptive
audit.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from small_study import table, without_times, write_data
from wemem import api
from wemem.config.parse import parse_study
from wemem.data.split import Role, subsets, victim_and_shadows
from wemem.defenses import make_defense
from wemem.errors import InputError
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.store import Store

SMALL: dict[str, Any] = {
    "training": {"epochs": 1, "batch_size": 64}, "finetune": {"epochs": 1, "batch_size": 64},
    "pruning": {"rounds": 2}, "attacks": ["confidence", "lira"], "defenses": ["undefended", "rmr"],
    "split": {"shadows": 2, "references": 4},
}  # fmt: skip


def study_of(folder: Path, how: str = "own", **scores: Any) -> dict[str, Any]:
    return table(write_data(folder), **SMALL, scores={"models": 6, "drawn_from": how, **scores})


def parties_of(folder: Path, study: dict[str, Any]) -> Parties:
    config = parse_study(study)
    return Parties.of(Pipeline.open(config, config.data.load(), Store(folder / "store"), Silent()), 0)


def test_a_model_of_the_adversary_is_scored_by_its_own_records_alone(tmp_path):
    parties = parties_of(tmp_path, study_of(tmp_path))
    references = [
        (parties.reference_split.records(k, Role.TRAIN), parties.reference_subsets(k), scores)
        for k, scores in enumerate(one.result() for one in parties.reference_scores(4))
    ]
    shadows = [
        (parties.split.records(k, Role.TRAIN), parties.shadow_subsets(k), scores)
        for k, scores in enumerate((one.result() for one in parties.shadow_scores()), start=1)
    ]
    assert len(shadows) == 2
    for train, split, scores in (*references, *shadows):
        assert np.flatnonzero(~np.isnan(scores.memorization.score)).tolist() == train.tolist()
        assert np.flatnonzero((split.roles == Role.TRAIN).any(0)).tolist() == train.tolist()
        assert len(split.records(0, Role.TRAIN)) == len(parties.defender_subsets().records(0, Role.TRAIN))
        assert scores.models == parties.config.scores.models


def test_subset_models_stop_by_the_dev_records_of_the_model_that_they_score(tmp_path):
    parties = parties_of(tmp_path, study_of(tmp_path))
    for k in (1, 2):
        dev = parties.split.records(k, Role.DEV).tolist()
        assert all(parties.shadow_subsets(k).records(i, Role.DEV).tolist() == dev for i in range(6))


def test_subsets_of_different_models_are_drawn_apart(tmp_path):
    parties = parties_of(tmp_path, study_of(tmp_path))
    splits = [
        *(parties.reference_subsets(k) for k in range(4)), *(parties.shadow_subsets(k) for k in (1, 2)),
        parties.defender_subsets(), parties.pool_subsets(),
    ]  # fmt: skip
    assert len({split.fingerprint for split in splits}) == len(splits)


def test_more_models_change_no_score_of_the_first(tmp_path):
    study = study_of(tmp_path)
    two = parties_of(tmp_path, study)
    three = parties_of(tmp_path, study | {"split": {"shadows": 3, "references": 4}})
    assert [s.key for s in three.shadow_scores()[:2]] == [s.key for s in two.shadow_scores()]
    assert [s.key for s in two.reference_scores(4)[:2]] == [s.key for s in two.reference_scores(2)]


def test_scores_by_a_pool_are_shared_by_all_models_of_a_kind(tmp_path):
    parties = parties_of(tmp_path, study_of(tmp_path, "pool"))
    assert len({one.key for one in parties.reference_scores(4)}) == 1
    assert len({one.key for one in parties.shadow_scores()}) == 1


def study_with_copies(folder: Path) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    """A study with random labels, the training records of its first shadow, and those of them that have a copy.

    The copy is a record of the adversary that the shadow was not trained on.
    """
    data = np.load(write_data(folder, random_labels=True, noise=3.0))
    features, labels = data["x"].copy(), data["y"]
    split = victim_and_shadows(labels, 1, seed=0, train=0.4, dev=0.1)
    train, left = split.records(1, Role.TRAIN), split.records(1, Role.AUDIT)
    copied: list[int] = []
    for label in np.unique(labels):
        own, free = train[labels[train] == label][::2], left[labels[left] == label]
        features[free[: len(own)]] = features[own]
        copied += own.tolist()
    np.savez(folder / "data.npz", x=features, y=labels)
    long = {
        "epochs": 60,
        "patience": None,
        "keep": "last",
        "batch_size": 32,
        "learning_rate": 0.01,
        "weight_decay": 0.0,
    }
    study = table(
        folder / "data.npz", defenses=["rmr"], attacks=["confidence"], training=long, scores={"models": 16},
        model={"kind": "fc", "hidden": [64], "dropout": 0.0}, split={"shadows": 1, "train": 0.4, "dev": 0.1},
    )  # fmt: skip
    return study, train, np.isin(train, copied)


def other_seeds(parties: Parties) -> np.ndarray:
    """Scores of the first shadow's training records by other subset models of them."""
    train, dev = (parties.split.records(1, role) for role in (Role.TRAIN, Role.DEV))
    draw = partial(subsets, parties.data.labels, train, round(0.7 * len(train)), 16, seed=1, purpose="again", dev=dev)
    return parties._scores_by_subsets("again", draw).result().memorization.score


@pytest.mark.slow
def test_a_copy_that_a_shadow_never_saw_lowers_its_scores_by_a_pool_and_not_its_own(tmp_path):
    study, train, copied = study_with_copies(tmp_path)
    parties = parties_of(tmp_path, study)
    own, again = parties.shadow_scores()[0].result().memorization.score[train], other_seeds(parties)[train]
    pool = replace(parties.config, scores=replace(parties.config.scores, drawn_from="pool"))
    pooled = Parties.of(Pipeline.open(pool, parties.data, Store(tmp_path / "store"), Silent()), 0)
    by_pool = pooled.shadow_scores()[0].result().memorization.score[train]
    assert roc_auc_score(copied, -own) == pytest.approx(0.5, abs=0.1)
    assert roc_auc_score(copied, -by_pool) > 0.65
    assert spearmanr(own, again).statistic > spearmanr(own, by_pool).statistic + 0.2


@pytest.mark.slow
def test_only_scoring_as_the_victim_is_scored_is_adaptive(tmp_path):
    runs, notes = {}, {}
    for how in ("own", "pool"):
        results = api.run(parse_study(study_of(tmp_path, how)), tmp_path / how)
        runs[how], notes[how] = {run["label"]: run for run in without_times(results)["runs"]}, results["notes"]
    for label in ("dense", "undefended"):
        assert runs["own"][label] == runs["pool"][label]
        assert runs["own"][label]["certificate"]["adaptive"]
    own, pool = runs["own"]["rmr"]["certificate"], runs["pool"]["rmr"]["certificate"]
    assert own["victim_recipe_fingerprint"] == pool["victim_recipe_fingerprint"]
    assert (own["adaptive"], pool["adaptive"]) == (True, False)
    assert not any("scored otherwise" in recipe for recipe in own["adversary_recipe_fingerprints"])
    assert all("scored otherwise" in recipe for recipe in pool["adversary_recipe_fingerprints"])
    for attack in ("confidence", "lira"):
        assert runs["own"]["rmr"]["attacks"][attack]["adaptive"]
        assert not runs["pool"]["rmr"]["attacks"][attack]["adaptive"]
    assert runs["own"]["rmr"]["accuracy"] == runs["pool"]["rmr"]["accuracy"]
    assert [any(note["code"] == "scored_otherwise" for note in notes[how]) for how in ("own", "pool")] == [False, True]


def test_scores_from_a_file_are_not_those_of_the_adversarys_models(tmp_path):
    parties = parties_of(tmp_path, study_of(tmp_path))
    parties.defender_scores().result().memorization.write(tmp_path / "scores.csv")
    given = parties_of(tmp_path, study_of(tmp_path, file=str(tmp_path / "scores.csv")))
    (pruning,) = given.config.prunings
    rmr, undefended = (make_defense(kind, {}) for kind in ("rmr", "undefended"))
    victim, *shadows = given.pruned_with_shadows("prune", rmr, pruning)[-1].result().provenance
    assert [recipe.removeprefix(f"{victim}:") for recipe in shadows] == ["scored otherwise"] * 2
    assert list(given.pruned_shadows("shadows", rmr, pruning).result().provenance) == shadows
    assert len(set(given.pruned_with_shadows("plain", undefended, pruning)[-1].result().provenance)) == 1


def test_another_way_to_score_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"drawn_from"):
        parse_study(study_of(tmp_path, "none"))


@pytest.mark.parametrize(
    ("name", "key", "new"),
    [("split", "reference_scores", "scores.drawn_from"), ("victim", "lend", "victim.adversary_share")],
)
def test_a_key_of_an_earlier_version_is_refused_with_the_one_that_took_its_place(name, key, new):
    with pytest.raises(InputError, match=rf"expected {new}, got {name}\.{key}"):
        parse_study({"data": {"source": "digits"}, name: {key: "own"}})
