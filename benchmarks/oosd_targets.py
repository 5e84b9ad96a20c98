"""Records, teachers and targets of the variants in ``benchmarks/oosd_variants.py``."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits

from wemem.data.dataset import Dataset
from wemem.data.neighbours import clusters, copies, keep_copies_together
from wemem.data.split import Role, Split, random_halves, stratified_draw, victim_and_shadows
from wemem.data.views import Views
from wemem.models import FullyConnected
from wemem.randomness import derive_seed, generator
from wemem.training import DENSE, Ensemble, fit
from wemem.training.backends import forward_of
from wemem.training.linear import fit_discriminants
from wemem.training.views import ViewedRecords

#: Files of the data sets and the number of records that are drawn of each.
FILES = {"location": ("location30.npz", None), "fashion": ("fashion-14k.npz", 5000), "letter": ("letter.npz", 5000),
         "adult": ("adult.npz", 5000)}  # fmt: skip
#: Smallest probability of a target.
LEAST = 1e-30


MODEL = FullyConnected()


@dataclass(frozen=True)
class Variant:
    """One way to make the targets.

    Args:
        name: of the row.
        levels: 0 is undefended pruning, 1 learns from teachers that did not see a record.
        blind: records are held out in clusters that ignore their labels; else clusters within classes.
        size: records in a cluster.
        count: teachers of a model.
        held: teachers that a record is held out from.
        components: principal components that a linear teacher sees; 0 for teachers like the student.
        temperature: of the targets.
        views: views of each record that the student learns.
        swap: share of a view's features that are another record's.
        epochs: epochs of a round.
        kept: classes that keep their probability in a target; the rest share theirs equally. 0 keeps all.
        sure: probability of the likeliest class in every target; 0 leaves it as it is.
        nulled: share of the gap that every round takes away: how much surer of its training records a model is
            than of dev records with the same target.
    """

    name: str
    levels: int = 1
    blind: bool = False
    size: int = 10
    count: int = 10
    held: int = 3
    components: int = 0
    temperature: float = 1.4
    views: int = 3
    swap: float = 0.1
    epochs: int = 21
    kept: int = 0
    sure: float = 0.0
    nulled: float = 0.0


def load(folder, name):
    """A data set scaled to [0, 1], and at most as many records as the table says."""
    file, most = FILES.get(name, (None, None))
    if name == "digits":
        x, y = load_digits(return_X_y=True)
        x = x / 16
    else:
        arrays = np.load(Path(folder) / file)
        x, y = arrays["x"], arrays["y"].astype(np.int64)
        x = x / 255 if name == "fashion" else x / 15 if name == "letter" else x
    data = Dataset.from_arrays(name, np.asarray(x, np.float32), y)
    return data if most is None else data.select(np.sort(np.random.default_rng(0).choice(len(data), most, False)))


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
    twins = np.arange(len(data), len(whole))
    return whole, Split(roles, whole.labels, "subsets"), audited, twins, np.concatenate([originals, twins])


def answers(ensemble, places, inputs, device):
    """Log-probabilities of some models, each on inputs of its own of one length, (S, B, C)."""
    forward = forward_of("vmapped", ensemble.template.eval())
    rows = torch.tensor(list(places))
    parameters, buffers = ({n: t[rows].to(device) for n, t in part.items()}
                           for part in (ensemble.parameters, ensemble.buffers))  # fmt: skip
    with torch.no_grad():
        parts = [forward(parameters, buffers, inputs[:, start : start + 1024].to(device)).log_softmax(-1).cpu()
                 for start in range(0, inputs.shape[1], 1024)]  # fmt: skip
    return torch.cat(parts, 1).double().numpy()


def groups_of(data, split, k, variant):
    """Groups of a model's training records that are held out together."""
    train = split.records(k, Role.TRAIN)
    if variant.size == 1:
        parts = list(train[:, None])
    elif variant.blind:
        parts = clusters(data.features, train, max(2, len(train) // variant.size))
    else:
        classes = [train[data.labels[train] == label] for label in np.unique(data.labels[train])]
        parts = [part for own in classes for part in clusters(data.features, own, max(2, len(own) // variant.size))]
    return [part for part in keep_copies_together(data.features, parts, copies(data.features, train)) if len(part)]


def covered(roles, labels, base):
    """Roles in which a class that lost all its training records gets them back."""
    for row, before in zip(roles, base, strict=True):
        for label in np.setdiff1d(np.unique(labels[before == Role.TRAIN]), np.unique(labels[row == Role.TRAIN])):
            row[(before == Role.TRAIN) & (labels == label)] = Role.TRAIN
    return roles


def viewed_answers(ensemble, places, data, drawn, model, numbers, device):
    """Log-probabilities of some models on records and views of one model."""
    x = ViewedRecords(torch.from_numpy(data.features), drawn).numbered(
        torch.tensor([model]), torch.from_numpy(numbers)[None]
    )
    return answers(ensemble, places, x.expand(len(places), *x.shape[1:]), device)


def all_numbers(records, count, passes):
    return np.add.outer(count * np.arange(passes), records).ravel()


def blank(data, seeds):
    return Ensemble.initialize(MODEL, data.input_shape, data.classes, [derive_seed(s, "init") for s in seeds])


def train(data, roles, seeds, device, **extra):
    split = Split(roles, data.labels, "subsets")
    recipe = extra.pop("recipe", DENSE)
    return fit(blank(data, seeds), data, split, recipe, seeds=seeds, device=device, **extra).ensemble


def linear_teachers(data, split, roles, variant):
    """Linear discriminants of each model; the probabilities of one model's at some inputs."""
    models = []
    for k in range(split.num_models):
        own = split.records(k, Role.TRAIN)
        seen = roles[k * variant.count : (k + 1) * variant.count, own] == Role.TRAIN
        models.append(fit_discriminants(data.features[own], data.labels[own], seen, data.classes, variant.components))

    def predict(model, inputs):
        return models[model].probabilities(inputs.numpy())

    return predict


def one_level(data, split, variant, seeds, device):
    """Mean probabilities of the teachers that did not see a record, (K, M, C)."""
    count, passes = variant.count, 1 + variant.views
    roles = np.repeat(split.roles, count, axis=0)
    places: list[list] = []
    for k, seed in enumerate(seeds):
        rng, turns = generator(seed, "teachers"), np.zeros(count, np.int64)
        places.append([])
        for group in groups_of(data, split, k, variant):
            out = np.lexsort((rng.random(count), turns))[: variant.held]
            turns[out] += len(group)
            roles[np.ix_(k * count + out, group)] = Role.AUDIT
            places[-1].append((group, out))
    covered(roles, data.labels, np.repeat(split.roles, count, axis=0))
    own = [derive_seed(seed, "teacher", t) for seed in seeds for t in range(count)]
    teachers = linear_teachers(data, split, roles, variant) if variant.components else train(data, roles, own, device)
    drawn = Views(variant.views, variant.swap).draw(
        [split.records(k, Role.TRAIN) for k in range(split.num_models)], len(data), data.input_shape
    )
    targets = np.zeros((split.num_models, passes * len(data), data.classes), np.float32)
    for k in range(split.num_models):
        records = split.records(k, Role.TRAIN)
        numbers = all_numbers(records, len(data), passes)
        if variant.components:
            x = ViewedRecords(torch.from_numpy(data.features), drawn).numbered(
                torch.tensor([k]), torch.from_numpy(numbers)[None]
            )
            p = teachers(k, x[0])
        else:
            p = np.exp(viewed_answers(teachers, range(k * count, (k + 1) * count), data, drawn, k, numbers, device))
        unseen = np.tile(roles[k * count : (k + 1) * count, records] != Role.TRAIN, passes)[..., None]
        mean = (p * unseen).sum(0) / np.maximum(unseen.sum(0), 1)
        targets[k, numbers] = np.log(np.maximum(mean, LEAST))
        if variant.nulled:
            dev = split.records(k, Role.DEV)
            p = (
                teachers(k, torch.from_numpy(data.features[dev])) if variant.components
                else np.exp(viewed_answers(teachers, range(k * count, (k + 1) * count), data, drawn, k, dev, device))
            )  # fmt: skip
            unseen = as_if_held_out(data, dev, places[k], count)[..., None]
            targets[k, dev] = np.log(np.maximum((p * unseen).sum(0) / unseen.sum(0), LEAST))
    return targets


def as_if_held_out(data, dev, groups, count):
    """Teachers that held out the group nearest to each dev record, within its class where there is one, (T, n)."""
    middles = np.stack([data.features[group].reshape(len(group), -1).mean(0) for group, _ in groups])
    main = np.array([np.bincount(data.labels[group]).argmax() for group, _ in groups])
    x = data.features[dev].reshape(len(dev), -1)
    far = ((x[:, None] - middles[None]) ** 2).sum(-1) + 1e9 * (data.labels[dev][:, None] != main[None])
    chosen = np.zeros((count, len(dev)), bool)
    for i, g in enumerate(far.argmin(1)):
        chosen[groups[g][1], i] = True
    return chosen


def softened(targets, variant):
    """Targets at their temperature, their tail flattened: log-probabilities."""
    log_p = torch.from_numpy(targets / variant.temperature).log_softmax(-1)
    if variant.kept:
        p, classes = log_p.exp(), log_p.shape[-1]
        top, where = p.topk(min(variant.kept, classes - 1), -1)
        if variant.sure:
            top = variant.sure * top / top.sum(-1, keepdim=True)
        rest = (1 - top.sum(-1, keepdim=True)) / (classes - top.shape[-1])
        log_p = rest.expand(p.shape).clone().scatter_(-1, where, top).clamp(min=LEAST).log()
    return log_p.numpy()
