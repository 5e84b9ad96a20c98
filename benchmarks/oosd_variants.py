"""Out-of-sample distillation attacked leave-one-out on several data sets, with mislabelled twins among the records.

    python -m benchmarks.oosd_variants --data DIR --out DIR --sets location --seeds 41 --models 64 --rounds 2

Every variant trains the same models on the same records: random halves of one pool, as reference models of
a study are, pruned in the same rounds. LiRA, RMIA and both combined attack each model with the help of all
others, and read perturbed copies of the records where the others' records show that they help. The
twins are copies of records that every model trains on, with another label; each is a member of half of the
models. Results are appended to ``OUT/variants.jsonl`` as they come; ``OUT/NAME.npz`` has the logit confidence
of every model in the audited records and then the twins, for a second analysis.

``gap`` is the mean difference of logit confidence between models with and without a record, in units of the
standard deviation over models without it, by tenths of the confidence of the latter, hardest first.
"""

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from wemem.attacks import make_attack
from wemem.auditing.leave_one_out import leave_one_out
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split, random_halves, stratified_draw, victim_and_shadows
from wemem.data.teachers import Teachers, held_out
from wemem.defenses import Defense, Distillation, OutOfSampleDistillation, Undefended
from wemem.metrics.over_targets import TargetsResult, metrics_over_targets
from wemem.metrics.pooled import pooled_estimate
from wemem.metrics.registry import METRICS
from wemem.models import FullyConnected, make_model
from wemem.pruning import Pruning, Schedule, iterate
from wemem.queries import DrawnCopies, query_models
from wemem.randomness import derive_seed, generator
from wemem.signals import Signals, logit_confidence
from wemem.training import DENSE, FINETUNE, Ensemble, Recipe, fit
from wemem.training.teacher_targets import linear_log_probabilities, teacher_log_probabilities

#: Population records for RMIA.
POPULATION = 500
VARIANTS: dict[str, Defense] = {
    "undefended": Undefended(),
    "oosd": OutOfSampleDistillation(),
    "networks": OutOfSampleDistillation(components=0),
    "no views": OutOfSampleDistillation(views=0),
    "3 views": OutOfSampleDistillation(views=3),
    "single records": OutOfSampleDistillation(clusters=0),
    "3 clusters": OutOfSampleDistillation(clusters=3),
    "half held out": OutOfSampleDistillation(held_out=5),
    "share 0.1": OutOfSampleDistillation(swap=0.1),
    "share 0.5": OutOfSampleDistillation(swap=0.5),
    "temperature 1": OutOfSampleDistillation(temperature=1.0),
}


@dataclass(frozen=True)
class Task:
    """A data set, and how models are trained on it.

    Args:
        file: where the records are; empty for the embedded ones.
        records: number of records that are drawn; None for all.
        shape: of a record.
        divisor: that brings features to [0, 1].
        model: architecture.
        dense: training of the models.
        finetune: training in each round of pruning.
    """

    file: str
    records: int | None
    shape: tuple[int, ...]
    divisor: float = 1.0
    model: str = "fc"
    dense: Recipe = DENSE
    finetune: Recipe = FINETUNE

    def load(self, folder: Path) -> Dataset:
        """The data set, at most as many records as are to be drawn."""
        if not self.file:
            x, y = load_digits(return_X_y=True)
        else:
            arrays = np.load(folder / self.file)
            x, y = (arrays[next(n for n in arrays.files if n.startswith(part))] for part in "xy")
        if self.shape == (3, 32, 32):
            x = x.transpose(0, 3, 1, 2)
        x = np.asarray(x, np.float32).reshape(len(x), *self.shape) / self.divisor
        data = Dataset.from_arrays(self.file or "digits", x, y.astype(np.int64))
        if self.records is None:
            return data
        return data.select(np.sort(np.random.default_rng(0).choice(len(data), self.records, False)))


IMAGES = replace(DENSE, epochs=10, learning_rate=2e-3, batch_size=64)
COLOURS = replace(DENSE, epochs=20, learning_rate=3e-3, batch_size=32)
TASKS = {
    "location": Task("location30.npz", None, (446,)),
    "digits": Task("", None, (1, 8, 8), 16.0),
    "letter": Task("letter.npz", 5000, (16,), 15.0),
    "adult": Task("adult.npz", 5000, (-1,)),
    "fashion": Task("fashion-14k.npz", 4000, (1, 28, 28), 255.0, "convnet", IMAGES, replace(IMAGES, epochs=4)),
    "fashion fc": Task("fashion-14k.npz", 4000, (1, 28, 28), 255.0),
    "cifar10": Task("cifar10-20k.npz", 8000, (3, 32, 32), 255.0, "convnet", COLOURS, replace(COLOURS, epochs=8)),
}


def planted(data, models, pairs, seed):
    """Roles of the models as a study draws those of its references, and mislabelled twins behind the records."""
    base = victim_and_shadows(data.labels, 1, seed=seed)
    audited, dev, train = base.audited(0), base.records(0, Role.DEV), base.records(0, Role.TRAIN)
    outside = np.setdiff1d(np.arange(len(data)), np.concatenate([audited, dev]))
    rng = generator(seed, "twin canaries")
    (originals,) = stratified_draw(data.labels, outside, [pairs], rng)
    halves = random_halves(
        data.labels, audited, models, seed=seed, outside=np.setdiff1d(outside, originals), train_size=len(train),
        dev_size=len(dev),
    )  # fmt: skip
    labels = (data.labels[originals] + rng.integers(1, data.classes, pairs)) % data.classes
    whole = Dataset.from_arrays(
        "planted", np.concatenate([data.features, data.features[originals]]), np.concatenate([data.labels, labels])
    )
    roles = np.concatenate([halves.roles, np.zeros((models, pairs), np.int8)], axis=1)
    roles[:, originals] = Role.TRAIN
    for j in range(models // 2):
        inside = rng.permutation(pairs) < pairs // 2
        for side in range(2):
            roles[2 * j + side, len(data) :] = np.where(inside == (side == 0), Role.TRAIN, Role.AUDIT)
    return whole, Split(roles, whole.labels, "subsets"), audited, np.arange(len(data), len(whole))


def trained(task, defense, data, split, seeds, rounds, device):
    """The pruned models of a defense, and how often its targets name a record's class."""
    model = FullyConnected() if task.model == "fc" else make_model(task.model, {})
    start = partial(Ensemble.initialize, model, data.input_shape, data.classes)
    blank = start([derive_seed(s, "init") for s in seeds])
    pruning = Pruning(Schedule(0.6, rounds), recipe=task.finetune)
    distillation, targets, right = defense.capability(Distillation), None, float("nan")
    if distillation is None:
        blank = fit(blank, data, split, task.dense, seeds=seeds, device=device).ensemble
    else:
        targets = taught(task, distillation.source, data, split, seeds, start, device)
        trains = [split.records(k, Role.TRAIN) for k in range(len(seeds))]
        named = [targets[k, own].argmax(1) == data.labels[own] for k, own in enumerate(trains)]
        right = float(np.mean(np.concatenate(named)))
    done = iterate(blank, data, split, pruning, defense, seeds=seeds, teacher_log_probs=targets, device=device)
    return list(done)[-1].ensemble, right


def taught(task, source: Teachers, data, split, seeds, start, device):
    """Targets of every model."""
    parts = held_out(split, source, seeds, data.features)
    if source.linear(data):
        return linear_log_probabilities(parts, split, data, source)
    own = [derive_seed(seed, "teacher", t) for seed in seeds for t in range(source.count)]
    teachers = fit(start([derive_seed(s, "init") for s in own]), data, parts, task.dense, seeds=own, device=device)
    return teacher_log_probabilities([teachers.ensemble], parts, split, data, source, device)


def gaps(confidence, member):
    """Difference between models with and without a record in standard deviations, by tenths of difficulty."""
    inside, outside = (np.nanmean(np.where(side, confidence, np.nan), 0) for side in (member, ~member))
    spread = np.sqrt(np.nanmean(np.nanvar(np.where(member, np.nan, confidence), 0, ddof=1)))
    tenths = np.array_split(np.argsort(outside), 10)
    return [round(float((inside - outside)[own].mean() / spread), 3) for own in tenths]


def queried(ensemble, data, records, seed):
    """Answers of every model on some records and on perturbed copies of them."""
    x, y, copies = data.features[records], data.labels[records], DrawnCopies()
    answers = [
        query_models(ensemble.select([k]), x, y, frozenset({"copies"}), seed=seed, copies=copies)
        for k in range(len(ensemble))
    ]
    return {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}


def attacks(answers, labels, roles, audited, records, seed):
    """LiRA, RMIA and both combined, leave-one-out on those of the records that are audited."""
    quiet = np.where(audited, roles, 0).astype(np.int8)
    kept = audited | ~(roles != 0).any(0)
    extras = {"copies": answers["copies"][:, kept]}
    signals = Signals(answers["logits"][:, kept], labels[kept], quiet[:, kept], records[kept], "shared",
                      ("variant",) * len(roles), extras)  # fmt: skip
    return leave_one_out(signals, {name: make_attack(name) for name in ("lira", "rmia", "combined")}, seed=seed)


def of_targets(result: TargetsResult):
    """AUC and TPR at 1 % FPR with intervals over targets and records."""
    summary = result.summary(metrics_over_targets())
    return {m: [summary[m]["value"], *summary[m]["ci"]] for m in ("auc", "tpr_at_0.01")}


def pooled(result: TargetsResult):
    """The same of the few twins, at one threshold over all models."""
    values = {}
    for m in ("auc", "tpr_at_0.01"):
        one = pooled_estimate(METRICS[m].value, result.scores, result.membership, np.random.default_rng(0))
        values[m] = [one.value, one.low, one.high]
    return values


def measured(task, name, defense, arguments, set_name, seed):
    """One row of the results."""
    data, split, audited, twins = planted(task.load(arguments.data), arguments.models, arguments.pairs, seed)
    seeds = [derive_seed(seed, "reference", k) for k in range(arguments.models)]
    start = time.process_time()
    ensemble, right = trained(task, defense, data, split, seeds, arguments.rounds, torch.device(arguments.device))
    seconds = time.process_time() - start
    roles, of = split.roles, len(audited)
    records = np.concatenate([audited, twins, np.flatnonzero(~(roles != 0).any(0))[:POPULATION]])
    answers = queried(ensemble, data, records, seed)
    labels, roles, place = data.labels[records], roles[:, records], np.arange(len(records))
    confidence = logit_confidence(answers["logits"], labels)[:, : of + len(twins)]
    np.savez_compressed(
        arguments.out / f"{set_name} {seed} {name}.npz", confidence=confidence.astype(np.float16),
        member=roles[:, : of + len(twins)] == Role.TRAIN,
    )  # fmt: skip
    right_ones = answers["logits"].argmax(-1) == labels
    own, who = place < of, (place >= of) & (place < of + len(twins))

    def results(audited, summary):
        return {a: summary(r) for a, r in attacks(answers, labels, roles, audited, records, seed).items()}

    return {
        "data": set_name, "seed": seed, "name": name, "models": len(seeds), "rounds": arguments.rounds,
        "settings": asdict(defense), "accuracy": float(right_ones[own & (roles == Role.AUDIT)].mean()),
        "train_accuracy": float(right_ones[own & (roles == Role.TRAIN)].mean()),
        "target_accuracy": right, "seconds": seconds,
        "gap": gaps(confidence[:, :of], roles[:, :of] == Role.TRAIN),
        "population": results(own, of_targets), "twins": results(who, pooled),
    }  # fmt: skip


def show(row):
    """Print a row of the results."""
    parts = [f"{row['data']:10} {row['seed']:3} {row['name']:15} test {100 * row['accuracy']:5.1f} train "
             f"{100 * row['train_accuracy']:5.1f} targets {100 * row['target_accuracy']:5.1f}"]  # fmt: skip
    for who in ("population", "twins"):
        parts.append(who)
        for attack, values in row[who].items():
            (auc, _, _), (tpr, low, high) = values["auc"], values["tpr_at_0.01"]
            parts.append(f"{attack} {100 * auc:.1f}, {100 * tpr:.1f} [{100 * low:.1f}, {100 * high:.1f}]")
    print(*parts, f"gap {row['gap'][0]:+.2f} {np.mean(row['gap'][1:]):+.2f}", f"{row['seconds']:.0f} s", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--models", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sets", nargs="*", default=["location"], choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[21])
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=["undefended", "oosd"])
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    for set_name in arguments.sets:
        for seed in arguments.seeds:
            for name in arguments.only:
                row = measured(TASKS[set_name], name, VARIANTS[name], arguments, set_name, seed)
                with (arguments.out / "variants.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
                show(row)


if __name__ == "__main__":
    main()
