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

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from wemem.data.batches import Group, Step, plan_steps
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.defenses.base import Batch, Defense, Observation, TrainingRecords, Undefended
from wemem.errors import InputError
from wemem.randomness import derive_seed
from wemem.training.augment import augment
from wemem.training.backends import Backend, Choice, choose_backend, forward_of
from wemem.training.dropout import MemberDropout
from wemem.training.ensemble import Ensemble
from wemem.training.layout import channels_last_pays, each_channels_last
from wemem.training.opposition import Opposition
from wemem.training.per_sample import PerSample
from wemem.training.recipe import Recipe
from wemem.training.side_by_side import OnEpoch, draws_globally, side_by_side

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


def fit(
    ensemble: Ensemble,
    data: Dataset,
    split: Split,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    defense: Defense | None = None,
    scores: Sequence[Float64[np.ndarray, " N"] | None] | None = None,
    taught: Float32[np.ndarray, "K N C"] | None = None,
    observed: Sequence[tuple[Observation, ...]] | None = None,
    backend: str = "auto",
    on_epoch: OnEpoch = lambda epoch, running: None,
) -> Fitted:
    """Train every member on its train records, stop it on its dev records, keep its best checkpoint or its last.

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
        taught: per member and record, log-probabilities of its teachers, for a defense that learns from them.
        observed: per member, what was observed before each round up to this one, for a defense that observes.
        backend: ``auto``, ``vmapped`` or ``sequential``.
        on_epoch: called after each epoch with its number and how many members still train.

    Raises:
        InputError: sizes that do not fit, a model that does not, or training that diverged.
    """
    members = len(ensemble)
    if not (split.members == len(seeds) == members):
        raise InputError(f"expected a split and seeds for {members} members, got {split.members} and {len(seeds)}")
    if len(split.labels) != len(data):
        raise InputError(f"expected a split of the data set's {len(data)} records, got one of {len(split.labels)}")
    if defense is not None and defense.taught_by is not None and taught is None:
        raise InputError(f"{defense.name} learns from teachers, got none; give their log-probabilities as taught")
    if recipe.augment != "none" and len(data.input_shape) != 3:
        raise InputError(
            f"augment = {recipe.augment!r} expected images (channels, height, width), got records of shape "
            f"{data.input_shape}; leave it out"
        )
    if defense is not None and (reason := defense.refusal(ensemble.template)) is not None:
        raise InputError(reason)
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    with torch.random.fork_rng(devices=[]):
        choice = choose_backend(ensemble, features[:2], data.classes, backend)
        together = choice.backend == "vmapped"
        knowledge = [
            TrainingRecords(
                split.records(k, Role.TRAIN), data.labels, None if scores is None else scores[k], seed,
                () if observed is None else observed[k],
            )
            for k, seed in enumerate(seeds)
        ]  # fmt: skip
        plan = _planner(knowledge, recipe, defense or Undefended(), not together)

        def train(part: list[int], on_epoch: OnEpoch) -> tuple[Ensemble, list[History]]:
            # what a model may draw besides its dropout (Dropout2d, noise) comes from PyTorch's global generator
            torch.manual_seed(derive_seed(seeds[part[0]], "dropout"))
            # a template of its own: a module holds the weights that it is called with
            chosen = replace(ensemble.select(part), template=copy.deepcopy(ensemble.template))
            run = _Run(
                chosen, part, features, labels, split, recipe, defense or Undefended(), choice.backend, plan,
                [seeds[k] for k in part], None if taught is None else torch.from_numpy(taught[part]),
            )  # fmt: skip
            run.risk = _risk(run.defense, [knowledge[k] for k in part])
            run.opposition = _opposition(run, knowledge, split, data.classes)
            return run.run(_counting(on_epoch, members - part[-1] - 1))

        if together:
            done = [train(list(range(members)), on_epoch)]
        else:
            cores = 1 if draws_globally(ensemble, features[:2]) else min(torch.get_num_threads(), members)
            done = side_by_side(lambda k, on_epoch: train([k], on_epoch), members, cores, on_epoch)
    history = tuple(h for run in done for h in run[1])
    return Fitted(Ensemble.concatenate([run[0] for run in done]), history, choice)


def _counting(on_epoch: OnEpoch, waiting: int) -> OnEpoch:
    return lambda epoch, running: on_epoch(epoch, waiting + running)


def _planner(records: Sequence[TrainingRecords], recipe: Recipe, defense: Defense, reuse: bool) -> Plan:
    seeds = [own.seed for own in records]

    # members one after another ask for the same epochs again; all together need none twice
    @lru_cache(maxsize=None if reuse else 1)
    def plan(epoch: int) -> list[Step]:
        groups = [defense.plan(epoch, (Group(own.train),), own) for own in records]
        return plan_steps(groups, recipe.batch_size, seeds, epoch)

    return plan


def _risk(defense: Defense, records: Sequence[TrainingRecords]) -> Float[Tensor, "S N"] | None:
    """What the defense's loss is to know of each member's records; all members or none have something to say."""
    known = [risk for own in records if (risk := defense.risk(own)) is not None]
    return torch.tensor(np.stack(known), dtype=torch.float32) if known else None


def _opposition(run: "_Run", records: Sequence[TrainingRecords], split: Split, classes: int) -> Opposition | None:
    own = [records[k] for k in run.ids]
    opponent = run.defense.opponent(classes, [r.seed for r in own])
    if opponent is None:
        return None
    dev = [split.records(k, Role.DEV) for k in run.ids]
    return Opposition(
        opponent, run.ensemble.template, run.forward, run.features, run.labels, [r.train for r in own], dev,
        [r.seed for r in own], run.recipe.batch_size,
    )  # fmt: skip


class _Run:
    """The mutable state of one call of :func:`fit`, for the members that run together."""

    def __init__(
        self, ensemble: Ensemble, ids: list[int], features: Tensor, labels: Tensor, split: Split, recipe: Recipe,
        defense: Defense, backend: Backend, plan: Plan, seeds: list[int], taught: Tensor | None,
    ) -> None:  # fmt: skip
        self.ensemble, self.ids, self.features, self.labels = ensemble, ids, features, labels
        self.recipe, self.defense, self.plan, self.seeds = recipe, defense, plan, seeds
        self.forward = forward_of(backend, ensemble.template)
        last = backend == "sequential" and channels_last_pays(ensemble.template)
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
        self.risk: Tensor | None = None
        self.opposition: Opposition | None = None
        # one leaf per member and tensor: a member that sits a step out has no gradient and keeps its Adam state
        self.leaves = [[torch.nn.Parameter(t[k]) for t in self.parameters.values()] for k in range(len(ids))]
        self.dropout_keys = [f"{n}.key" for n, m in ensemble.template.named_modules() if isinstance(m, MemberDropout)]
        self.dropout_seeds, self.taught = [derive_seed(seed, "dropout") for seed in seeds], taught
        self.steps_taken = [0] * len(ids)
        self.records_seen = [0] * len(ids)
        self.dev = _padded([split.records(k, Role.DEV) for k in ids])

    def run(self, on_epoch: OnEpoch) -> tuple[Ensemble, list[History]]:
        """Train until every member has stopped; the ensemble at the kept checkpoints, and each member's history."""
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
        plain = {name: tensor.contiguous() for name, tensor in best.items()}
        return replace(self.ensemble, parameters=plain, buffers=best_buffers), history

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
        rows = None if len(taking) == len(self.ids) else torch.tensor(taking)
        records = torch.from_numpy(step.records[self.ids])
        if rows is not None:
            records, weights = records[rows], weights[rows]
        self._set_dropout_keys(taking)
        parameters = {n: _rows(t, rows).detach().requires_grad_() for n, t in self.parameters.items()}
        buffers = {n: _rows(t, rows) for n, t in self.buffers.items()}
        self.ensemble.template.train()
        steps = [self.steps_taken[k] for k in taking]
        if self.opposition is not None:
            self.opposition.play(parameters, buffers, taking, steps)
        views = [derive_seed(self.seeds[k], "view", taken) for k, taken in zip(taking, steps, strict=True)]
        x, labels = augment(self.features[records], self.recipe.augment, views), self.labels[records]
        if self.per_sample is None:
            logits = self.forward(parameters, buffers, x)
            loss = self.defense.loss(self._batch(logits, labels, weights, epoch, taking, records))
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
        own = (torch.tensor(taking)[:, None], records)
        return Batch(
            logits, labels, weights, epoch,
            taught=None if self.taught is None else self.taught[own],
            risk=None if self.risk is None else self.risk[own],
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

    def _set_dropout_keys(self, taking: list[int]) -> None:
        """A new mask for every member and step; a member that sits out keeps its place in its own sequence."""
        for name in self.dropout_keys:
            for k in taking:
                self.buffers[name][k] = (self.dropout_seeds[k] + 0x9E3779B9 * self.steps_taken[k]) & 0x7FFFFFFF

    def _dev_accuracy(self, live: list[int], epoch: int) -> list[float]:
        rows = torch.tensor(live)
        records, valid = self.dev[0][rows], self.dev[1][rows]
        parameters = {n: self.laid_out(t[rows]) for n, t in self.parameters.items()}
        buffers = {n: t[rows] for n, t in self.buffers.items()}
        self.ensemble.template.eval()
        with torch.no_grad():
            cuts = torch.split(records, 1024, dim=1)
            logits = torch.cat([self.forward(parameters, buffers, self.features[cut]) for cut in cuts], dim=1)
        _require_finite("output", logits, epoch)
        right = (logits.argmax(-1) == self.labels[records]) & valid
        return [float(share) for share in right.sum(1).double() / valid.sum(1)]


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
