"""The gap between scoring a model's records by models on its own records and by models on a larger pool.

    python benchmarks/reference_scores.py STUDY --store DIR [--models 3] [--set key=value]

A defense by memorization scores orders the victim's records by subset models of the victim's own
training records. For some reference models and shadows this scores their training records in three
ways: by subset models of their own records, as the victim's are (``own``); the same with other
seeds (``again``), which is the most agreement that noise allows; and by models on the pool that
they are drawn from (``pool``), as ``scores.drawn_from = "pool"`` does: the dense reference models
for a reference model, models on subsets of the adversary's records for a shadow. It prints
Spearman's rank correlation with ``own`` and the share of the riskiest records that both name.
WEMEM_DATA names the data.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from wemem.config.parse import load_study
from wemem.data.split import Role, random_halves, subsets
from wemem.pipeline.cost import CHUNK, whole_chunks
from wemem.pipeline.parties import Parties
from wemem.pipeline.pipeline import Pipeline
from wemem.pipeline.progress import Silent
from wemem.store.store import Store

TOP = 0.27


def by_subsets(parties, split, model, purpose):
    """Scores of one model's training records by models on subsets of them."""
    settings, train = parties.config.scores, split.records(model, Role.TRAIN)
    own = subsets(
        parties.data.labels, train, round(settings.fraction * len(train)), settings.models, seed=parties.seed,
        purpose=purpose, dev=split.records(model, Role.DEV),
    )  # fmt: skip
    seeds = parties.seeds(purpose, settings.models)
    trained = parties.pipeline.trainer.train_in_chunks(purpose, own, seeds)
    return parties.pipeline.scorer.score(purpose, own, trained).memorization.score[train]


def by_pool(parties):
    """Scores of the audited records by reference models on random halves of them, in whole chunks."""
    audited, dev = parties.split.audited(0), parties.split.records(0, Role.DEV)
    outside = np.setdiff1d(np.arange(len(parties.data)), np.concatenate([audited, dev]))
    count = whole_chunks(parties.config.scores.models)
    split = random_halves(
        parties.data.labels, audited, count, seed=parties.seed, outside=outside, train_size=len(parties.members),
        dev_size=len(dev),
    )  # fmt: skip
    trained = parties.pipeline.trainer.train_in_chunks("pool", split, parties.seeds("reference", count))
    return split, parties.pipeline.scorer.score("pool", split, trained[: count // CHUNK]).memorization.score


def compare(kind, model, own, other):
    """One line: how far two scores of the same records agree."""
    known = ~(np.isnan(own) | np.isnan(other))
    top = round(TOP * known.sum())
    risky = [set(np.argsort(-scores[known])[:top].tolist()) for scores in (own, other)]
    rho = spearmanr(own[known], other[known]).statistic
    print(
        f"{kind:<22} {model:>2}  rank correlation {rho:.3f}  overlap {len(risky[0] & risky[1]) / top:.3f}", flush=True
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--models", type=int, default=3)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    config = load_study(given.study, [*given.set, 'scores.drawn_from="pool"'])
    pipeline = Pipeline.open(config, config.data.load(), Store(given.store), Silent())
    parties = Parties.of(pipeline, config.seeds[0])
    halves, pool = by_pool(parties)
    adversary = parties.shadow_scores()[0].result().memorization.score
    cases = [("reference", halves, k, pool) for k in range(given.models)]
    cases += [("shadow", parties.split, k, adversary) for k in range(1, 1 + given.models)]
    for kind, split, k, pooled in cases:
        own = by_subsets(parties, split, k, f"{kind}/{k}")
        compare(f"{kind}, again", k, own, by_subsets(parties, split, k, f"{kind}/{k}/again"))
        compare(f"{kind}, pool", k, own, pooled[split.records(k, Role.TRAIN)])


if __name__ == "__main__":
    main()
