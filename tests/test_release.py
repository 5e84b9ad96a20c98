"""Answers that pass through a defense before an adversary sees them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import small_study
from toy import blobs, ensemble_of
from wemem.config.parse import parse_study
from wemem.defenses import Chain, Defense, EarlyStopping, OutputPostprocessing, Undefended
from wemem.pipeline.progress import Silent
from wemem.queries import postprocessed, query_models
from wemem.store.store import Store
from wemem.study.run import run_study


@dataclass(frozen=True)
class Noisy(Defense):
    """Answers with noise of a given size added."""

    size: float = 1.0

    @property
    def name(self):
        return "noisy"

    @property
    def capabilities(self):
        return (OutputPostprocessing((self.noisy,)),)

    def noisy(self, logits, rng):
        return (logits + self.size * rng.standard_normal(logits.shape)).astype(np.float32)


def answers(defense, seed=0):
    data = blobs()
    needs = frozenset({"sensitivity", "robustness"})
    return query_models(postprocessed(ensemble_of(data), defense, seed=seed), data.features, data.labels, needs, seed=1)


def test_answers_left_as_they_are_are_the_models_own():
    data = blobs()
    assert np.array_equal(answers(Undefended())["logits"], ensemble_of(data).logits(data.features))


def test_a_query_draws_by_seed_member_and_turn():
    one, again, other = answers(Noisy()), answers(Noisy()), answers(Noisy(), seed=2)
    assert all(np.array_equal(one[name], again[name]) for name in one)
    assert not np.array_equal(one["logits"], other["logits"])
    plain = answers(Undefended())["logits"]
    noise = one["logits"] - plain
    assert not np.allclose(noise[0], noise[1])
    # two queries of the same record differ by fresh noise, which a finite difference blows up
    assert one["sensitivity"].mean() > 10 * answers(Undefended())["sensitivity"].mean()


def test_a_chain_answers_as_its_part_does():
    both, rng = Chain((EarlyStopping(), Noisy())), np.random.default_rng
    logits = np.zeros((3, 2), np.float32)
    altered = both.capability(OutputPostprocessing)
    assert altered is not None
    assert Chain((EarlyStopping(), Other())).capability(OutputPostprocessing) is None
    assert np.array_equal(altered(logits, rng(0)), Noisy().noisy(logits, rng(0)))


def test_two_parts_of_a_chain_alter_answers_one_after_the_other():
    logits, rng = np.ones((3, 2), np.float32), np.random.default_rng
    altered = Chain((Noisy(), Negated())).capability(OutputPostprocessing)
    assert altered is not None
    assert np.array_equal(altered(logits, rng(0)), -Noisy().noisy(logits, rng(0)))


@dataclass(frozen=True)
class Negated(Defense):
    """Answers with their sign changed."""

    @property
    def name(self):
        return "negated"

    @property
    def settings(self):
        return {}

    @property
    def capabilities(self):
        return (OutputPostprocessing((lambda logits, rng: -logits,)),)


@dataclass(frozen=True)
class Other(Defense):
    @property
    def name(self):
        return "other"


def test_attacks_see_the_altered_answers_of_the_defended_models_and_the_dense_ones_plain(tmp_path):
    study = parse_study(small_study.table(small_study.write_data(tmp_path), defenses=["undefended"]))
    store = Store(tmp_path / "store")
    outcomes: dict[tuple[str, str], Any] = {}
    for name, defense in (("plain", Undefended()), ("noisy", Noisy(size=3.0))):
        config = replace(study, defenses={name: defense})
        outcomes |= {(name, o.label): o for o in run_study(config, store, Silent())}
    for layout in ("disjoint", "shared"):
        dense = [outcomes[name, "dense"].signals[layout].logits for name in ("plain", "noisy")]
        assert np.array_equal(*dense)
        plain, noisy = (outcomes[name, name].signals[layout].logits for name in ("plain", "noisy"))
        assert np.abs(noisy - plain).mean() > 1
        # no two models' answers carry the same noise
        assert np.abs(np.corrcoef((noisy - plain).reshape(len(noisy), -1)) - np.eye(len(noisy))).max() < 0.5
