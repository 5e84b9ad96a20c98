"""Training of an ensemble, as a pure function of its arguments.

The loop, for all members at once::

    for epoch:
        for step in plan_steps(defense.plan(epoch, ...)):    # (K, B) records and weights
            opposition.play(parameters, buffers)             # under a defense that has an opponent
            logits = forward(parameters, buffers, x)         # (S, B, C), the S members that take part
            defense.loss(batch).sum() -> gradients           # members are independent: the sum's gradient is each one's
            # under a defense that clips they come from each record's own instead: PerSample
            optimizer step; masked weights are set to 0
        dev accuracy -> best checkpoint and early stopping, each member by itself
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from wemem.data.batches import Group, Step, plan_steps
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.data.views import DrawnViews
from wemem.defenses.base import Batch, Defense, Observation, TrainingRecords, Undefended
from wemem.errors import InputError
from wemem.randomness import derive_seed
from wemem.training.augment import augment
from wemem.training.backends import Backend, Choice, choose_backend, forward_of, in_precision
from wemem.training.device import CPU, choose_device
from wemem.training.dropout import MemberDropout
from wemem.training.ensemble import Ensemble
from wemem.training.layout import channels_last_pays, each_channels_last
from wemem.training.memory import GRANTED, Share, bound, halving, memory_for_training, peak, share, size_of
from wemem.training.opposition import Opposition
from wemem.training.per_sample import PerSample
from wemem.training.recipe import Recipe
from wemem.training.side_by_side import OnEpoch, draws_globally, side_by_side
from wemem.training.views import ViewedRecords

#: Dev records that are asked about at a time.
ASKED = 1024
#: What there must be memory for.
ONE = "training one member"

Plan = Callable[[int], list[Step]]


@dataclass(frozen=True)
class History:
    """What one member's training went through.

    Args:
        dev_accuracy: after each epoch it ran, fractions.
        best_epoch: 0-based, the checkpoint that was kept: the best, or the last if the recipe says so.
        records_seen: records that steps were taken on, counted with repetition.
        steps: optimizer steps that it took.
    """

    dev_accuracy: tuple[float, ...]
    best_epoch: int
    records_seen: int
    steps: int


@dataclass(frozen=True, eq=False)
class Fitted:
    """A trained ensemble, each member at the checkpoint that its recipe keeps, with its history."""

    ensemble: Ensemble
    history: tuple[History, ...]
    choice: Choice


#: Some of the members at the end, and what each went through.
Trained = tuple[Ensemble, list[History]]


def fit(
    ensemble: Ensemble,
    data: Dataset,
    split: Split,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    defense: Defense | None = None,
    scores: Sequence[Float64[np.ndarray, " N"] | None] | None = None,
    taught: Float32[np.ndarray, "K M C"] | None = None,
    observed: Sequence[tuple[Observation, ...]] | None = None,
    backend: str = "auto",
    device: torch.device | str = "cpu",
    on_epoch: OnEpoch = lambda epoch, running: None,
) -> Fitted:
    """Train every member on its train records, stop it on its dev records, keep its best checkpoint or its last.

    Members that do not fit into memory together are trained in parts (:mod:`wemem.training.memory`).

    Args:
        ensemble: K members; not changed.
        data: N records.
        split: roles (K, N).
        recipe: how to train.
        seeds: one per member, for its order of records, dropout and the defense's draws. A member's result
            depends on no other member but by the layout: rounding, the order of steps, and what BatchNorm makes of
            padded batches, where members have different numbers of records.
        defense: what to do differently; plain training if None.
        scores: per member, memorization scores (N,) for a defense that needs them.
        taught: per member and record, log-probabilities of its teachers, for a defense that learns from them; M is N,
            and as many more for each view of the records (:mod:`wemem.data.views`).
        observed: per member, what was observed before each round up to this one, for a defense that observes.
        backend: ``auto``, ``vmapped`` or ``sequential``.
        device: where to train, as :func:`~wemem.training.device.choose_device` takes it. Data and members are moved
            there once, and the members come back.
        on_epoch: called after each epoch with its number and how many members still train; members for which memory
            ran out begin anew.

    Raises:
        InputError: sizes that do not fit, a model that does not, a device that is not there, no memory for one member,
            or training that diverged.
    """
    where, defense = choose_device(device), defense or Undefended()
    _require_fitting(ensemble, data, split, recipe, len(seeds), defense, taught)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        choice = choose_backend(ensemble, torch.from_numpy(data.features[:2]), data.classes, backend, where)
        records = [
            TrainingRecords(
                split.records(k, Role.TRAIN), data.labels, None if scores is None else scores[k], seed,
                () if observed is None else observed[k],
            )
            for k, seed in enumerate(seeds)
        ]  # fmt: skip
        features, labels = _moved(data, where)
        plan = _planner(records, recipe, defense, len(data), choice.backend == "sequential")
        task = _Task(ensemble, data, features, labels, split, recipe, defense, seeds, records, taught, choice, plan)
        return task.fit(on_epoch)


def _require_fitting(
    ensemble: Ensemble, data: Dataset, split: Split, recipe: Recipe, seeds: int, defense: Defense,
    taught: Float32[np.ndarray, "K M C"] | None,
) -> None:  # fmt: skip
    members = len(ensemble)
    if not (split.members == seeds == members):
        raise InputError(f"expected a split and seeds for {members} members, got {split.members} and {seeds}")
    if len(split.labels) != len(data):
        raise InputError(f"expected a split of the data set's {len(data)} records, got one of {len(split.labels)}")
    if defense.taught_by is not None and taught is None:
        raise InputError(f"{defense.name} learns from teachers, got none; give their log-probabilities as taught")
    asked = (members, defense.showings * len(data), data.classes)
    if defense.taught_by is not None and taught is not None and taught.shape != asked:
        raise InputError(f"expected what teachers say of all records and views, {asked}, got {taught.shape}")
    if recipe.augment != "none" and len(data.input_shape) != 3:
        raise InputError(
            f"augment = {recipe.augment!r} expected images (channels, height, width), got records of shape "
            f"{data.input_shape}; leave it out"
        )
    if recipe.precision != "fp32" and defense.clipping is not None:
        raise InputError(
            f"precision = {recipe.precision!r} expected a defense that clips no gradients, got {defense.name}: what it "
            "promises is not to rest on rounding; use fp32"
        )
    if (reason := defense.refusal(ensemble.template)) is not None:
        raise InputError(reason)


def _moved(data: Dataset, device: torch.device) -> list[Tensor]:
    """Features and labels on a device."""
    arrays = (data.features, data.labels)
    return halving(lambda _: [torch.from_numpy(array).to(device) for array in arrays], 1, "the data")[0]


@dataclass(frozen=True, eq=False)
class _Task:
    """One call of :func:`fit`: its arguments, and what was decided by them."""

    ensemble: Ensemble
    data: Dataset
    features: Tensor
    labels: Tensor
    split: Split
    recipe: Recipe
    defense: Defense
    seeds: Sequence[int]
    records: Sequence[TrainingRecords]
    taught: Float32[np.ndarray, "K M C"] | None
    choice: Choice
    plan: Plan

    @property
    def members(self) -> int:
        return len(self.ensemble)

    @cached_property
    def views(self) -> DrawnViews | None:
        """Of all members' train records."""
        wanted, train = self.defense.shown_as, [own.train for own in self.records]
        return None if wanted is None else wanted.draw(train, len(self.data), self.data.input_shape)

    @property
    def example(self) -> Float[Tensor, "2 ..."]:
        """Two records, on the CPU."""
        return torch.from_numpy(self.data.features[:2])

    def fit(self, on_epoch: OnEpoch) -> Fitted:
        """Train all members, as many at a time as fit into memory."""
        done: list[Trained] = []

        def in_parts(size: int) -> list[Trained]:
            """All members from the first that is not done, in equal parts of at most ``size``."""
            while (first := sum(len(histories) for _, histories in done)) < self.members:
                left = self.members - first
                part = range(first, first + -(-left // -(-left // size)))
                done.append(self.train(list(part), on_epoch))
            return done

        def in_turn(cores: int) -> list[Trained]:
            return side_by_side(lambda k, on_epoch: self.train([k], on_epoch), self.members, cores, on_epoch)

        together = self.choice.backend == "vmapped"
        most = self.members if together else self._cores()
        fitting = Share(1) if most == 1 else self._share(most)
        # one at a time is a part of one; only where memory leaves no room for two it is to keep to one thread
        trained, size = halving(in_parts if together or most == 1 else in_turn, fitting.members, ONE)
        choice = self.choice
        if size < most:
            why = fitting.reason if size == fitting.members else "memory ran out with more"
            choice = replace(choice, reason=f"{choice.reason}; {size} of {most} members at a time: {why}")
        joined = Ensemble.concatenate([members for members, _ in trained])
        ensemble = replace(self.ensemble, parameters=joined.parameters, buffers=joined.buffers)
        return Fitted(ensemble, tuple(history for _, histories in trained for history in histories), choice)

    def train(self, part: list[int], on_epoch: OnEpoch) -> Trained:
        """Some members from beginning to end."""
        # what a model may draw besides its dropout (Dropout2d, noise) comes from PyTorch's global generator
        torch.manual_seed(derive_seed(self.seeds[part[0]], "dropout"))
        return self.begin(part).run(_counting(on_epoch, self.members - part[-1] - 1))

    def begin(self, part: list[int]) -> "_Run":
        """Some members before their first step, on the device of the features."""
        device = self.features.device
        run = _Run(
            self.ensemble.select(part).to(device), part, self.features, self.labels, self.split, self.recipe,
            self.defense, self.choice.backend, self.plan, [self.seeds[k] for k in part],
            None if self.taught is None else torch.from_numpy(self.taught[part]).to(device),
        )  # fmt: skip
        if self.views is not None:
            run.shown = ViewedRecords(self.features, replace(self.views, donors=self.views.donors[part]))
        run.risk = _risk(self.defense, [self.records[k] for k in part], device)
        run.opposition = _opposition(run, self.records, self.split, self.data.classes)
        return run

    def _cores(self) -> int:
        """How many members are trained at a time, each by itself; a GPU computes one after another."""
        if self.features.device != CPU or draws_globally(self.ensemble, self.example):
            return 1
        return min(torch.get_num_threads(), self.members)

    def _share(self, most: int) -> Share:
        """How many of ``most`` members fit at a time."""
        state, device = size_of({**self.ensemble.parameters, **self.ensemble.buffers}), self.features.device
        # the members as they were given, as they end, and joined
        held = 3 * state + self.data.features.nbytes + (0 if self.taught is None else 2 * self.taught.nbytes)
        limit = memory_for_training(device, held)
        high = bound(self.ensemble.module(0), self.example, self.recipe.batch_size, ASKED)
        if GRANTED + most * high <= limit:
            return Share(most)
        if self.choice.backend == "sequential":
            one, _ = halving(self._peak, 1, ONE)
            two = 2 * one
        else:
            two, tried = halving(self._peak, 2, ONE)
            if tried == 1:
                return Share(1, "memory ran out with 2")
            one = self._peak(1)
        groups, states = len({step.key for step in self.plan(0)}), 2 if self.recipe.optimizer == "adam" else 1
        kept = state + (groups - 1) * states * size_of(self.ensemble.parameters)
        return share(most, one, two, kept // self.members, limit)

    def _peak(self, count: int) -> int:
        """Bytes that the first members take for a full step, and for a look at their dev records."""
        widest = max(self.plan(0), key=lambda step: step.records.shape[1])
        own = widest.records[widest.weights.sum(1).argmax()]
        everywhere = np.tile(own, (self.members, 1))
        step = replace(widest, records=everywhere, weights=np.ones_like(everywhere, np.float32))
        return peak(lambda: self.begin(list(range(count))).trial(step), self.features.device)


def _counting(on_epoch: OnEpoch, waiting: int) -> OnEpoch:
    return lambda epoch, running: on_epoch(epoch, waiting + running)


def _planner(
    records: Sequence[TrainingRecords], recipe: Recipe, defense: Defense, count: int, reuse: bool
) -> Plan:  # fmt: skip
    seeds = [own.seed for own in records]

    def shown(group: Group) -> Group:
        """With the views of its records, by their numbers in a data set of so many records."""
        return replace(group, records=np.concatenate([group.records + v * count for v in range(defense.showings)]))

    # members one after another ask for the same epochs again; all together need none twice
    @lru_cache(maxsize=None if reuse else 1)
    def plan(epoch: int) -> list[Step]:
        groups = [[shown(group) for group in defense.plan(epoch, (Group(own.train),), own)] for own in records]
        return plan_steps(groups, recipe.batch_size, seeds, epoch)

    return plan


def _risk(
    defense: Defense, records: Sequence[TrainingRecords], device: torch.device
) -> Float[Tensor, "S N"] | None:  # fmt: skip
    """What the defense's loss is to know of each member's records; all members or none have something to say."""
    known = [risk for own in records if (risk := defense.risk(own)) is not None]
    return torch.tensor(np.stack(known), dtype=torch.float32, device=device) if known else None


def _opposition(run: "_Run", records: Sequence[TrainingRecords], split: Split, classes: int) -> Opposition | None:
    own = [records[k] for k in run.ids]
    opponent = run.defense.opponent(classes, [r.seed for r in own])
    if opponent is None:
        return None
    opponent.to(run.device)
    dev = [split.records(k, Role.DEV) for k in run.ids]
    return Opposition(
        opponent, run.ensemble.template, run.forward, run.features, run.labels, [r.train for r in own], dev,
        [r.seed for r in own], run.recipe.batch_size,
    )  # fmt: skip


class _Run:
    """The mutable state of one call of :func:`fit`, for the members that run together; all of it is on one device."""

    def __init__(
        self, ensemble: Ensemble, ids: list[int], features: Tensor, labels: Tensor, split: Split, recipe: Recipe,
        defense: Defense, backend: Backend, plan: Plan, seeds: list[int], taught: Tensor | None,
    ) -> None:  # fmt: skip
        self.ensemble, self.ids, self.features, self.labels = ensemble, ids, features, labels
        self.recipe, self.defense, self.plan, self.seeds = recipe, defense, plan, seeds
        self.device = features.device
        self.forward = in_precision(forward_of(backend, ensemble.template), recipe.precision, self.device)
        last = self.device == CPU and backend == "sequential" and channels_last_pays(ensemble.template)
        self.laid_out = each_channels_last if last else Tensor.contiguous
        self.parameters = {n: self.laid_out(t) for n, t in ensemble.parameters.items()}
        self.buffers = dict(ensemble.buffers)
        self.pruned = {n: ~mask for n, mask in ensemble.masks.items()}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        clipping = defense.clipping
        self.per_sample = (
            None
            if clipping is None
            else PerSample.of(clipping, ensemble.template, features[:2], backend, seeds, self.pruned)
        )
        self.shown = ViewedRecords(features, None)
        self.risk: Tensor | None = None
        self.opposition: Opposition | None = None
        # one leaf per member and tensor: a member that sits a step out has no gradient and keeps its Adam state
        self.leaves = [[torch.nn.Parameter(t[k]) for t in self.parameters.values()] for k in range(len(ids))]
        self.dropout_keys = [f"{n}.key" for n, m in ensemble.template.named_modules() if isinstance(m, MemberDropout)]
        self.dropout_seeds, self.taught = [derive_seed(seed, "dropout") for seed in seeds], taught
        self.steps_taken = [0] * len(ids)
        self.records_seen = [0] * len(ids)
        self.dev = [tensor.to(self.device) for tensor in _padded([split.records(k, Role.DEV) for k in ids])]

    def trial(self, step: Step) -> None:
        """What takes the most memory: a step of all members, and a look at their dev records."""
        everyone = list(range(len(self.ids)))
        self._step(step, everyone, 0)
        self._dev_accuracy(everyone, 0)

    def run(self, on_epoch: OnEpoch) -> Trained:
        """Train until every member has stopped; the members at their kept checkpoints, on the CPU, with histories."""
        count = len(self.ids)
        best, best_buffers = _copies(self.parameters), _copies(self.buffers)
        curves: list[list[float]] = [[] for _ in range(count)]
        live = list(range(count))
        for epoch in range(self.defense.epochs(self.recipe.epochs)):
            for step in self.plan(epoch):
                self._step(step, live, epoch)
            accuracy = self._dev_accuracy(live, epoch)
            for k, value in zip(live, accuracy, strict=True):
                if self.recipe.keep == "last" or value > max(curves[k], default=-1.0):
                    for kept, current in ((best, self.parameters), (best_buffers, self.buffers)):
                        for name, tensor in current.items():
                            kept[name][k] = tensor[k]
                curves[k].append(value)
            live = [k for k in live if not self._patience_is_out(curves[k])]
            on_epoch(epoch, len(live))
            if not live:
                break
        history = [
            History(tuple(curve), self._kept(curve), seen, steps)
            for curve, seen, steps in zip(curves, self.records_seen, self.steps_taken, strict=True)
        ]
        plain = {name: tensor.contiguous().cpu() for name, tensor in best.items()}
        return Ensemble(self.ensemble.template, plain, {n: t.cpu() for n, t in best_buffers.items()}), history

    def _kept(self, curve: list[float]) -> int:
        """The epoch whose checkpoint stays."""
        return len(curve) - 1 if self.recipe.keep == "last" else int(np.argmax(curve))

    def _patience_is_out(self, curve: list[float]) -> bool:
        patience = self.recipe.patience
        return patience is not None and len(curve) - 1 - int(np.argmax(curve)) >= patience

    def _step(self, step: Step, live: list[int], epoch: int) -> None:
        """One optimizer step of the live members that have records in it."""
        weights = torch.from_numpy(step.weights[self.ids])
        seen = weights.sum(1).int().tolist()
        taking = [k for k in live if seen[k]]
        if not taking:
            return
        records = torch.from_numpy(step.records[self.ids])
        rows = None
        if len(taking) < len(self.ids):
            records, weights, rows = records[taking], weights[taking], torch.tensor(taking, device=self.device)
        records = records.to(self.device, non_blocking=True)
        self._set_dropout_keys(taking, rows)
        parameters = {n: _rows(t, rows).detach().requires_grad_() for n, t in self.parameters.items()}
        buffers = {n: _rows(t, rows) for n, t in self.buffers.items()}
        self.ensemble.template.train()
        steps = [self.steps_taken[k] for k in taking]
        if self.opposition is not None:
            self.opposition.play(parameters, buffers, taking, steps)
        keys = [derive_seed(self.seeds[k], "view", taken) for k, taken in zip(taking, steps, strict=True)]
        x = augment(self.shown.numbered(taking, records), self.recipe.augment, keys)
        labels = self.labels[self.shown.of(records)]
        if self.per_sample is None:
            logits = self.forward(parameters, buffers, x)
            counted = weights.to(self.device, non_blocking=True)
            loss = self.defense.loss(self._batch(logits, labels, counted, epoch, taking, records))
            gradients = torch.autograd.grad(loss.sum(), list(parameters.values()), allow_unused=True)
            _require_finite("loss", loss, epoch)
            self._update(step, taking, gradients)
        else:
            own = self.per_sample.gradients(parameters, buffers, x, labels, weights, taking, steps)
            for gradient in own:
                _require_finite("gradient", gradient, epoch)
            self._update(step, taking, own)
        if rows is not None:
            for name, tensor in buffers.items():
                self.buffers[name][rows] = tensor
        for k in taking:
            self.steps_taken[k] += 1
            self.records_seen[k] += seen[k]

    def _batch(
        self, logits: Tensor, labels: Tensor, weights: Tensor, epoch: int, taking: list[int], records: Tensor
    ) -> Batch:
        """A step's outputs, with whatever else the defense's loss is to know of their records."""
        who = torch.tensor(taking, device=self.device)[:, None]
        return Batch(
            logits, labels, weights, epoch,
            taught=None if self.taught is None else self.taught[who, records],
            risk=None if self.risk is None else self.risk[who, self.shown.of(records)],
            suspicion=None if self.opposition is None else self.opposition.opponent.suspicion(taking, logits, labels),
        )  # fmt: skip

    def _update(self, step: Step, taking: list[int], gradients: tuple[Tensor | None, ...]) -> None:
        optimizer = self._optimizer(step)
        # vmap hands back transposed gradients, and the fused optimizers read memory in order, whatever the strides
        gradients = tuple(None if g is None else self.laid_out(g) for g in gradients)
        optimizer.zero_grad(set_to_none=True)
        for row, k in enumerate(taking):
            for leaf, gradient in zip(self.leaves[k], gradients, strict=True):
                leaf.grad = None if gradient is None else gradient[row]
        optimizer.step()
        for name, pruned in self.pruned.items():
            self.parameters[name].masked_fill_(pruned, 0.0)

    def _optimizer(self, step: Step) -> torch.optim.Optimizer:
        """The optimizer of a group of records; each group has a state of its own."""
        if step.key not in self.optimizers:
            leaves = [leaf for own in self.leaves for leaf in own]
            decay = self.recipe.weight_decay if step.weight_decay is None else step.weight_decay
            rate = self.recipe.learning_rate
            self.optimizers[step.key] = (
                torch.optim.Adam(leaves, lr=rate, weight_decay=decay, fused=True)
                if self.recipe.optimizer == "adam"
                # fused SGD wants all leaves to have taken their first step together
                else torch.optim.SGD(leaves, lr=rate, momentum=0.9, weight_decay=decay)
            )
        return self.optimizers[step.key]

    def _set_dropout_keys(self, taking: list[int], rows: Tensor | None) -> None:
        """A new mask for every member and step; a member that sits out keeps its place in its own sequence."""
        keys = [(self.dropout_seeds[k] + 0x9E3779B9 * self.steps_taken[k]) & 0x7FFFFFFF for k in taking]
        drawn = torch.tensor(keys, dtype=torch.int32, device=self.device)
        for name in self.dropout_keys:
            self.buffers[name][slice(None) if rows is None else rows] = drawn

    def _dev_accuracy(self, live: list[int], epoch: int) -> list[float]:
        rows = torch.tensor(live, device=self.device)
        records, valid = self.dev[0][rows], self.dev[1][rows]
        parameters = {n: self.laid_out(t[rows]) for n, t in self.parameters.items()}
        buffers = {n: t[rows] for n, t in self.buffers.items()}
        self.ensemble.template.eval()
        with torch.no_grad():
            cuts = torch.split(records, ASKED, dim=1)
            logits = torch.cat([self.forward(parameters, buffers, self.features[cut]) for cut in cuts], dim=1)
        _require_finite("output", logits, epoch)
        right = (logits.argmax(-1) == self.labels[records]) & valid
        shares: list[float] = (right.sum(1).double() / valid.sum(1)).tolist()
        return shares


def _require_finite(what: str, values: Tensor, epoch: int) -> None:
    if not torch.isfinite(values).all():
        raise InputError(f"training diverged in epoch {epoch}: the {what} is not finite; lower the learning rate")


def _rows(tensor: Tensor, rows: Tensor | None) -> Tensor:
    return tensor if rows is None else tensor[rows]


def _copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _padded(records: list[Int64[np.ndarray, " n"]]) -> tuple[Int64[Tensor, "S D"], Bool[Tensor, "S D"]]:
    width = max(map(len, records))
    index, valid = np.zeros((len(records), width), np.int64), np.zeros((len(records), width), bool)
    for k, own in enumerate(records):
        index[k, : len(own)], valid[k, : len(own)] = own, True
    return torch.from_numpy(index), torch.from_numpy(valid)


def accuracy(logits: Float[np.ndarray, "N C"], labels: Int64[np.ndarray, " N"]) -> float:
    """Share of records whose highest logit is their label."""
    return float((logits.argmax(1) == labels).mean())
