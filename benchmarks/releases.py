"""Attacks on several releases, and on the sparsity pattern, of models that begin from weights of their own or from one.

    python -m benchmarks.releases --data DIR [--models 34] [--seed 11] [--start own|shared] [--bernoulli 0]

Every model is trained on a random half of one pool of Location, as reference models of a study are, pruned in
five rounds without a defense, and attacked by all others but its complementary partner. Beside the attacks of the
package stand two that are not in it:

- ``joint``: normal distributions of all releases for each record, with one covariance for all records and both
  sides (``global``), or one for each record and side that is drawn toward that of its side (``shrunk``);
- ``bernoulli``: ratios of Bernoulli distributions of every weight of the first layer, whose rates differ between
  the sides with the given prior probability; for as many targets as ``--bernoulli`` says, 10 s each.
"""

import argparse

import numpy as np
import torch
from scipy.special import betaln

from benchmarks.oosd_targets import DENSE, blank, load, planted
from wemem.attacks import make_attack
from wemem.attacks.moments import variance_prior
from wemem.attacks.reference import Attacked
from wemem.auditing.leave_one_out import leave_one_out
from wemem.data.split import Role
from wemem.defenses import Undefended
from wemem.metrics.over_targets import TargetsResult, metrics_over_targets
from wemem.pipeline.patterns import joined_masks
from wemem.pruning import Pruning, Schedule, iterate
from wemem.randomness import derive_seed
from wemem.signals import Signals, logit_confidence
from wemem.training import FINETUNE, fit

ATTACKS = {
    "lira": ("lira", {}),
    "lira_releases, all": ("lira_releases", {}),
    "lira_releases, rounds": ("lira_releases", {"held": "rounds"}),
    "lira_releases, ends": ("lira_releases", {"held": "ends"}),
    "sparsity_pattern, weights": ("sparsity_pattern", {"compared": "weights"}),
    "sparsity_pattern, inputs": ("sparsity_pattern", {"compared": "inputs"}),
}
JOINT = {"last": slice(-1, None), "rounds": slice(1, None), "all": slice(None)}
PRIORS = (1.0, 0.01, 0.0001)


def trained(folder, models, seed, start):
    """Signals of all models on the pool."""
    data, split, audited, _, _ = planted(load(folder, "location"), models, 2, seed)
    seeds, device = [derive_seed(seed, "reference", k) for k in range(models)], torch.device("cpu")
    first = blank(data, seeds if start == "own" else seeds[:1] * models)
    ensembles = [fit(first, data, split, DENSE, seeds=seeds, device=device).ensemble]
    pruning = Pruning(Schedule(0.6, 5), recipe=FINETUNE)
    ensembles += [
        one.ensemble for one in iterate(ensembles[0], data, split, pruning, Undefended(), seeds=seeds, device=device)
    ]
    labels = data.labels[audited]
    logits = [one.logits(data.features[audited], device=device) for one in ensembles]
    releases = np.stack([logit_confidence(one, labels) for one in logits], axis=2).astype(np.float32)
    return Signals(
        logits[-1], labels, split.roles[:, audited], audited, "shared", ("undefended",) * models,
        {"releases": releases}, joined_masks([(ensembles[-1], models)]),
    )  # fmt: skip


def side_of(values, weight):
    """Number, means and sums of products of deviations of each record's values, by release."""
    count = weight.sum(axis=0)
    mean = np.einsum("knr,kn->nr", values, weight) / count[:, None]
    deviation = (values - mean) * weight[..., None]
    return count, mean, np.einsum("knr,kns->nrs", deviation, deviation)


def joint(signals, target, held, covariance):
    """Log-ratio of two normal distributions of all releases for each record."""
    attacked = Attacked.on_all_rows(signals, target)
    values = signals.extras["releases"][:, attacked.rows, JOINT[held]].astype(np.float64)
    sides = [side_of(values[attacked.others], np.asarray(one, float)) for one in (attacked.trained, ~attacked.trained)]
    together = sum(squares.sum(axis=0) for _, _, squares in sides) / sum((n - 1).sum() for n, _, _ in sides)
    scores = []
    for count, mean, squares in sides:
        if covariance == "global":
            each = np.broadcast_to(together, squares.shape)
        else:
            usual = squares.sum(axis=0) / (count - 1).sum()
            whiten = np.linalg.inv(np.linalg.cholesky(usual))
            own = np.einsum("ar,nrs,as->na", whiten, squares, whiten)
            freedom, scale = variance_prior(own.ravel(), np.repeat(count, own.shape[1]).astype(np.int64))
            freedom = min(freedom, 1e6)
            each = (freedom * scale * usual + squares) / (freedom + count - 1)[:, None, None]
        off = values[target] - mean
        distance = np.einsum("nr,nr->n", off, np.linalg.solve(each, off[..., None])[..., 0])
        scores.append(-0.5 * (distance + np.linalg.slogdet(each)[1]))
    return scores[0] - scores[1]


def tables(inside, outside, prior, half=0.5):
    """Log-ratios of a kept and of a pruned weight, by how many models keep it on the inner side and in all."""
    a, c = np.arange(inside + 1)[:, None], np.arange(inside + outside + 1)[None]
    possible, o = (c >= a) & (c - a <= outside), np.clip(c - a, 0, outside)
    total = inside + outside
    evidence = (
        betaln(a + half, inside - a + half) + betaln(o + half, outside - o + half)
        - betaln(half, half) - betaln(a + o + half, total - a - o + half)
    )  # fmt: skip
    differ = prior * np.exp(evidence) / (1 - prior + prior * np.exp(evidence))
    same = (a + o + half) / (total + 1)
    rates = [differ * (x + half) / (n + 1) + (1 - differ) * same for x, n in ((a, inside), (o, outside))]
    kept, pruned = np.log(rates[0] / rates[1]), np.log((1 - rates[0]) / (1 - rates[1]))
    return [np.where(possible, one, 0).astype(np.float32).ravel() for one in (kept, pruned)]


def bernoulli(signals, target, prior):
    """The sum over the weights of the first layer of the ratio of their rates on both sides."""
    attacked = Attacked.on_all_rows(signals, target)
    masks = next(iter(signals.masks.values())).reshape(signals.num_models, -1)
    known, own = masks[attacked.others].astype(np.float32), masks[target]
    total, models = known.sum(axis=0).astype(np.int32), len(known)
    member = attacked.trained.T.astype(np.float32)
    inside = int(member[0].sum())
    assert (member.sum(axis=1) == inside).all()  # random halves
    score = np.zeros(len(attacked.rows))
    for state, table in zip((True, False), tables(inside, models - inside, prior), strict=True):
        for columns in np.array_split(np.flatnonzero((own == state) & (total > 0) & (total < models)), 32):
            counts = (member @ known[:, columns]).astype(np.int32) * (models + 1) + total[columns]
            score += table[counts].sum(axis=1, dtype=np.float64)
    return score


def show(name, summary):
    auc, tpr = summary["auc"], summary["tpr_at_0.01"]
    print(
        f"{name:28} AUC {100 * auc['value']:5.1f} [{100 * auc['ci'][0]:.1f}, {100 * auc['ci'][1]:.1f}]  TPR at 1 % FPR "
        f"{100 * tpr['value']:5.1f} [{100 * tpr['ci'][0]:.1f}, {100 * tpr['ci'][1]:.1f}]", flush=True,
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--models", type=int, default=34)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--start", choices=("own", "shared"), default="own")
    parser.add_argument("--bernoulli", type=int, default=0)
    arguments = parser.parse_args()
    signals, metrics = (
        trained(arguments.data, arguments.models, arguments.seed, arguments.start),
        metrics_over_targets(),
    )
    for name, (kind, settings) in ATTACKS.items():
        show(name, leave_one_out(signals, {name: make_attack(kind, settings)}, seed=0)[name].summary(metrics))

    def other(name, score, targets):
        member = signals.roles[list(targets)][:, signals.audited(0)] == Role.TRAIN
        show(name, TargetsResult(name, np.stack([score(k) for k in targets]), member, 0).summary(metrics))

    for held in JOINT:
        for covariance in ("global", "shrunk"):
            other(
                f"joint, {held}, {covariance}", lambda k, h=held, c=covariance: joint(signals, k, h, c),
                range(signals.num_models),
            )  # fmt: skip
    for prior in PRIORS if arguments.bernoulli else ():
        other(f"bernoulli, prior {prior}", lambda k, p=prior: bernoulli(signals, k, p), range(arguments.bernoulli))


if __name__ == "__main__":
    main()
