"""Simulated coverage of every interval that WeMem reports, and false alarms of its chance levels and comparisons.

    python benchmarks/interval_coverage.py [--repeats 1000] [--only tpr]

One line a situation: how often the 95 % interval holds the true value, its mean width, and whether that meets the goal
of 94 to 97.5 %. True values are closed forms where there are any, else means over simulations of equal size.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import norm

from wemem.metrics.crossed import crossed_interval, crossed_spread, pseudo_values, record_groups
from wemem.metrics.intervals import auc_interval, balanced_accuracy, mean_interval, proportion, tpr_at_fpr
from wemem.metrics.null import chance_of_strongest
from wemem.metrics.registry import METRICS, ScoredRecords
from wemem.results.differences import holm

#: Repeats beside those asked for, where one is cheap or dear.
EFFORT = {"accuracy": 20, "balanced": 10, "seeds": 20, "crossed": 0.2, "paired": 0.2}
GOAL = (0.94, 0.975)
Case = tuple[str, float, Callable[[np.random.Generator], tuple[float, float]]]


def proportions() -> Iterator[Case]:
    for n, p in ((452, 0.6), (1500, 0.6), (1500, 0.97), (1500, 0.01)):
        yield (
            f"accuracy, {n} records, true {100 * p:g} %",
            p,
            lambda rng, n=n, p=p: ends(proportion(int(rng.binomial(n, p)), n)),
        )


def balanced() -> Iterator[Case]:
    for m, n, p, q in ((1500, 450, 0.5, 0.5), (1500, 450, 0.8, 0.6), (100, 100, 0.95, 0.9)):
        yield (
            f"balanced accuracy, {m} + {n} records, TPR {p:g}, TNR {q:g}",
            (p + q) / 2,
            lambda rng, m=m, n=n, p=p, q=q: ends(balanced_accuracy(rng.random(m) < p, rng.random(n) >= q)),
        )


def areas() -> Iterator[Case]:
    for m, n, d in ((1500, 450, 0.0), (1500, 450, 0.5), (1500, 450, 2.0), (100, 100, 3.0)):
        yield (
            f"AUC, {m} + {n} records, shift {d:g}",
            norm.cdf(d / 2**0.5),
            lambda rng, m=m, n=n, d=d: ends(auc_interval(rng.normal(d, 1, m), rng.normal(size=n))),
        )


def tprs() -> Iterator[Case]:
    for m, n, fpr in ((1500, 450, 0.01), (1500, 1500, 0.01), (5000, 5000, 0.01), (1500, 450, 0.1), (5000, 5000, 0.001)):
        for d in (0.0, 0.5, 1.5, 3.0):
            truth = norm.sf(norm.isf(fpr) - d)
            yield (
                f"TPR at {100 * fpr:g} % FPR, {m} + {n} records, true {100 * truth:.1f} %",
                truth,
                (lambda rng, m=m, n=n, d=d, fpr=fpr: ends(tpr_at_fpr(rng.normal(d, 1, m), rng.normal(size=n), fpr))),
            )
    for d in (0.5, 1.5):  # scores of few values, such as those of labels alone
        grid = np.arange(-8, 12, 0.5)
        truth = norm.sf(grid[norm.sf(grid + 0.25) <= 0.01].min() + 0.25 - d)
        yield (
            f"TPR at 1 % FPR, 1500 + 1500 records, tied scores, true {100 * truth:.1f} %",
            truth,
            lambda rng, d=d: ends(
                tpr_at_fpr(np.round(2 * rng.normal(d, 1, 1500)) / 2, np.round(2 * rng.normal(size=1500)) / 2, 0.01)
            ),
        )


def seeds() -> Iterator[Case]:
    for s in (3, 5, 10):
        yield f"mean over {s} seeds", 0.0, lambda rng, s=s: ends(mean_interval(rng.normal(size=s)))


def crossed() -> Iterator[Case]:
    for targets, records in ((17, 800), (65, 1500)):
        for of_targets, of_records in ((0.0, 0.0), (0.2, 0.5), (0.4, 0.0), (0.4, 1.0)):
            for name in ("auc", "tpr_at_0.01"):
                metric, shape = METRICS[name], (targets, records, of_targets, of_records)
                rng = np.random.default_rng(1)
                truth = float(np.mean([mean_rate(metric, *ensemble(rng, 17, *shape[1:])) for _ in range(300)]))

                def interval(rng, metric=metric, shape=shape):
                    scores, membership = ensemble(rng, *shape)
                    table = pseudo_values(metric.value, scores, membership, record_groups(shape[1], rng))
                    return ends(crossed_interval(*table))

                effects = f"spread of targets {of_targets:g}, of records {of_records:g}"
                yield f"leave-one-out {metric.label}, {targets} targets, {records} records, {effects}", truth, interval


def paired() -> Iterator[Case]:
    for targets in (17, 65):
        for apart in (0.0, 0.3):
            yield (
                f"leave-one-out difference, {targets} targets, spread of its own {apart:g}",
                0.0,
                (lambda rng, targets=targets, apart=apart: ends(difference(rng, targets, apart).interval())),
            )


def difference(rng, targets, apart, records=600):
    """TPR at 1 % FPR of two equal arms on the same targets and records, which share part of their effects."""
    metric, groups = METRICS["tpr_at_0.01"], record_groups(records, rng)
    membership = halves(rng, targets, records)
    shared = rng.normal(size=(targets, 1)) * 0.3 + rng.normal(size=records) * 0.5
    tables, values = [], []
    for _ in range(2):
        own = apart * (rng.normal(size=(targets, 1)) + rng.normal(size=records))
        scores = membership * 0.7 * np.exp(shared + own) + rng.normal(size=(targets, records))
        value, table = pseudo_values(metric.value, scores, membership, groups)
        values.append(value)
        tables.append(table)
    return crossed_spread(values[0] - values[1], tables[0] - tables[1])


def halves(rng, targets, records):
    membership = np.zeros((targets, records), bool)
    for target in range(0, targets, 2):
        membership[target, rng.permutation(records)[: records // 2]] = True
        if target + 1 < targets:
            membership[target + 1] = ~membership[target]
    return membership


def ensemble(rng, targets, records, of_targets, of_records):
    """Scores with a leak that differs between targets and between records, on complementary halves."""
    membership = halves(rng, targets, records)
    strength = 0.5 * np.exp(of_targets * rng.normal(size=(targets, 1)) + of_records * rng.normal(size=records))
    return membership * strength + rng.normal(size=(targets, records)), membership


def mean_rate(metric, scores, membership):
    return np.mean([metric.value(ScoredRecords(s, m)) for s, m in zip(scores, membership, strict=True)])


def ends(estimate) -> tuple[float, float]:
    return estimate.low, estimate.high


KINDS = {
    "accuracy": proportions, "balanced": balanced, "auc": areas, "tpr": tprs, "seeds": seeds, "crossed": crossed,
    "paired": paired,
}  # fmt: skip


def coverage(case: Case, repeats: int) -> None:
    title, truth, interval = case
    rng = np.random.default_rng(0)
    found = np.array([interval(rng) for _ in range(repeats)])
    share = float(np.mean((found[:, 0] <= truth) & (truth <= found[:, 1])))
    verdict = "short" if share < GOAL[0] else "wide" if share > GOAL[1] else "ok"
    print(f"{title:92} {100 * share:6.1f} %  {np.mean(found[:, 1] - found[:, 0]):7.4f}  {verdict}", flush=True)


def null_levels(repeats: int) -> None:
    """The strongest of ten attacks that guess: measured beside nominal, for independent and for alike attacks."""
    print(
        f"\n{'strongest of ten on models without a leak':70} {'chance':>8} {'measured':>9} {'above':>7} (nominal 2.5 %)"
    )
    for n in (400, 808, 4000):
        for alike in (0.0, 0.9):
            rows: dict[str, list[tuple[float, float, bool]]] = {}
            for model in range(repeats):
                rng = np.random.default_rng(model)
                member = rng.permutation(n) < n // 2
                common = rng.normal(size=n)
                scores = [alike**0.5 * common + (1 - alike) ** 0.5 * rng.normal(size=n) for _ in range(10)]
                attacks = [ScoredRecords(score, member, score > 0) for score in scores]
                chance = chance_of_strongest(list(METRICS.values()), attacks, rng, draws=400)
                for name, metric in METRICS.items():
                    best, level = max(metric.value(attack) for attack in attacks), chance[name]
                    rows.setdefault(name, []).append((level.expected, best, best > level.high))
            for name, values in rows.items():
                expected, best, above = np.mean(values, axis=0)
                title = f"{METRICS[name].label}, n = {n}, correlation of the attacks {alike:g}"
                print(f"{title:70} {100 * expected:6.2f} % {100 * best:7.2f} % {100 * above:5.1f} %", flush=True)


def families(repeats: int) -> None:
    """Equal arms: how often Holm's rule shows a difference, and how often one arm alone may leak least."""
    print("\nequal arms over 17 targets, TPR at 1 % FPR: false alarms (nominal 5 %)")
    for count in (5, 13):
        rng, shown, alone = np.random.default_rng(0), 0, 0
        for _ in range(repeats):
            tables = 0.1 + 0.02 * rng.normal(size=(count, 17, 1)) + 0.02 * rng.normal(size=(count, 17, 10))
            gaps = {
                (i, j): crossed_spread(float((tables[i] - tables[j]).mean()), tables[i] - tables[j])
                for i in range(count) for j in range(count) if i != j
            }  # fmt: skip
            p_values = [p_value(gap) for (i, j), gap in gaps.items() if i < j]
            shown += any(holm(p_values))
            level = 1 - 0.1 / (count - 1)
            kept = [
                i for i in range(count) if not any(gaps[i, j].interval(level).low > 0 for j in range(count) if j != i)
            ]
            alone += len(kept) == 1
        print(
            f"{count:3} arms: some pair is called different {100 * shown / repeats:.1f} %, "
            f"one arm alone is called the best {100 * alone / repeats:.1f} %", flush=True,
        )  # fmt: skip


def p_value(gap) -> float:
    from wemem.results.differences import Difference

    found = Difference(gap.value, gap, "targets", 17).p_value
    assert found is not None
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--only", choices=[*KINDS, "null", "families"])
    arguments = parser.parse_args()
    for name, cases in KINDS.items():
        if arguments.only in (None, name):
            for case in cases():
                coverage(case, max(20, int(arguments.repeats * EFFORT.get(name, 1))))
    if arguments.only in (None, "null"):
        null_levels(max(20, arguments.repeats // 5))
    if arguments.only in (None, "families"):
        families(max(20, arguments.repeats // 2))


if __name__ == "__main__":
    main()
