"""The models that run together, from their first step to the last.

The loop, for all models at once::

    for epoch:
        for step in plan_steps(defense.plan(epoch, ...)):    # (K, B) records and weights
            adversary_turns.play(parameters, buffers)             # under a defense that has an inference_adversary
            logits = forward(parameters, buffers, x)         # (S, B, C), the S models that take part
            defense.loss(batch).sum() -> gradients           # models are independent: the sum's gradient is each one's
            # under a defense that clips, they come from the gradient of each record instead: PerSample
            optimizer step; masked weights are set to 0
        dev accuracy -> best checkpoint and early stopping, each model by itself
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from wemem.data.batches import Step
from wemem.defenses import AdversarialTraining, Batch, Clipping, Defense, InferenceAdversary
from wemem.errors import InputError
from wemem.randomness import derive_seed
from wemem.training.adversary_turns import AdversaryTurns
from wemem.training.augment import augment
from wemem.training.backends import Backend, forward_of, in_precision
from wemem.training.cohort import Cohort
from wemem.training.dropout import SeededDropout
from wemem.training.ensemble import Ensemble
from wemem.training.layout import choose_layout
from wemem.training.optimizer import StackedOptimizer
from wemem.training.per_sample import PerSample
from wemem.training.recipe import Recipe
from wemem.training.side_by_side import OnEpoch
from wemem.training.views import rows_of

#: The number of dev records that are evaluated at a time.
ASKED = 1024

Plan = Callable[[int], list[Step]]


@dataclass(frozen=True)
class History:
    """The course of one model's training.

    Args:
        dev_accuracy: the accuracy on the dev records after each epoch, a fraction.
        best_epoch: the epoch of the checkpoint that is kept, from 0: the best, or the last, depending on the recipe.
        records_seen: the number of records in all steps, counted with repetition.
        steps: the number of optimizer steps.
    """

    dev_accuracy: tuple[float, ...]
    best_epoch: int
    records_seen: int
    steps: int


#: Some of the models after training, and the history of each.
Trained = tuple[Ensemble, list[History]]


class Run:
    """The mutable state of a training, for the models that run together; all of it is on one device.

    Args:
        cohort: the models and their records.
        recipe: the length and optimizer of the training.
        defense: the defense that changes the training.
        backend: the backend that computes the models.
        plan: the steps of every epoch.
        classes: C, the number of classes.
    """

    def __init__(
        self, cohort: Cohort, recipe: Recipe, defense: Defense, backend: Backend, plan: Plan, classes: int
    ) -> None:
        self.cohort, self.recipe, self.defense, self.plan = cohort, recipe, defense, plan
        self.template, self.device = cohort.ensemble.template, cohort.features.device
        self.forward = in_precision(forward_of(backend, self.template), recipe.precision, self.device)
        self.layout = choose_layout(backend, self.template, self.device)
        self.parameters = {n: self.layout.lay_out(t) for n, t in cohort.ensemble.parameters.items()}
        self.buffers = dict(cohort.ensemble.buffers)
        masks = cohort.ensemble.masks
        # a frozen weight that is pruned takes no step
        self.pruned = {n: self.layout.lay_out(~masks[n]) for n in masks if n in self.parameters}
        self.optimizers: dict[str, StackedOptimizer] = {}
        clipping, adversarial = defense.capability(Clipping), defense.capability(AdversarialTraining)
        self.per_sample = (
            None
            if clipping is None
            else PerSample.of(clipping, self.template, cohort.features[:2], backend, cohort.seeds, self.pruned)
        )
        self.adversary_turns: AdversaryTurns | None = None
        if adversarial is not None:
            adversary = adversarial.start(classes, cohort.seeds)
            adversary.to(self.device)
            self.adversary_turns = AdversaryTurns(adversary, cohort, self.forward, recipe.batch_size)
        self.dropout_keys = [f"{n}.key" for n, m in self.template.named_modules() if isinstance(m, SeededDropout)]
        self.dropout_seeds = [derive_seed(seed, "dropout") for seed in cohort.seeds]
        self.steps_taken = [0] * len(cohort.ids)
        self.records_seen = [0] * len(cohort.ids)
        self.dev = [tensor.to(self.device) for tensor in _padded(cohort.dev)]

    def trial(self, step: Step) -> None:
        """Run a step of all models and an evaluation on their dev records, which takes the peak memory of training."""
        everyone = list(range(len(self.cohort.ids)))
        self._step(step, everyone, 0)
        self._dev_accuracy(everyone, 0)

    def run(self, on_epoch: OnEpoch) -> Trained:
        """Train until every model has stopped, and return their checkpoints, on the CPU, with their histories."""
        count = len(self.cohort.ids)
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
        return Ensemble(self.template, plain, {n: t.cpu() for n, t in best_buffers.items()}), history

    def _kept(self, curve: list[float]) -> int:
        """The epoch of the kept checkpoint."""
        return len(curve) - 1 if self.recipe.keep == "last" else int(np.argmax(curve))

    def _patience_is_out(self, curve: list[float]) -> bool:
        patience = self.recipe.patience
        return patience is not None and len(curve) - 1 - int(np.argmax(curve)) >= patience

    def _step(self, step: Step, live: list[int], epoch: int) -> None:
        """One optimizer step of the live models that have records in it."""
        weights = torch.from_numpy(step.weights[self.cohort.ids])
        seen = weights.sum(1).int().tolist()
        taking = [k for k in live if seen[k]]
        if not taking:
            return
        records = torch.from_numpy(step.records[self.cohort.ids])
        rows = None
        if len(taking) < len(self.cohort.ids):
            records, weights, rows = records[taking], weights[taking], torch.tensor(taking, device=self.device)
        records = records.to(self.device, non_blocking=True)
        self._set_dropout_keys(taking, rows)
        parameters = {n: _rows(t, rows).detach().requires_grad_() for n, t in self.parameters.items()}
        buffers = {n: _rows(t, rows) for n, t in self.buffers.items()}
        self.template.train()
        steps = [self.steps_taken[k] for k in taking]
        if self.adversary_turns is not None:
            self.adversary_turns.play(parameters, buffers, taking, steps)
        keys = [derive_seed(self.cohort.seeds[k], "view", taken) for k, taken in zip(taking, steps, strict=True)]
        x = augment(self.cohort.views.numbered(taking, records), self.recipe.augment, keys)
        labels = self.cohort.labels[self.cohort.views.of(records)]
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
        """The outputs of a step, with the other numbers of their records that the defense's loss uses."""
        who, cohort = torch.tensor(taking, device=self.device)[:, None], self.cohort
        return Batch(
            logits, labels, weights, epoch,
            teacher_log_probs=None if cohort.teacher_log_probs is None else cohort.teacher_log_probs[who, records],
            risk=None if cohort.risk is None else cohort.risk[who, cohort.views.of(records)],
            membership_log_probability=self._membership(taking, logits, labels),
        )  # fmt: skip

    def _membership(self, taking: list[int], logits: Tensor, labels: Tensor) -> Tensor | None:
        if self.adversary_turns is None:
            return None
        adversary: InferenceAdversary = self.adversary_turns.inference_adversary
        return adversary.membership_log_probability(taking, logits, labels)

    def _update(self, step: Step, taking: list[int], gradients: tuple[Tensor | None, ...]) -> None:
        straight = [None if g is None else self.layout.straight(self.layout.lay_out(g)) for g in gradients]
        self._optimizer(step).step(taking, straight)
        for name, pruned in self.pruned.items():
            self.parameters[name].masked_fill_(pruned, 0.0)

    def _optimizer(self, step: Step) -> StackedOptimizer:
        """The optimizer of a group of records; each group has a state of its own."""
        if step.key not in self.optimizers:
            decay = self.recipe.weight_decay if step.weight_decay is None else step.weight_decay
            rate = self.recipe.learning_rate

            def make(leaves: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
                if self.recipe.optimizer == "adam":
                    return torch.optim.Adam(leaves, lr=rate, weight_decay=decay, fused=True)
                # fused SGD wants all leaves to have taken their first step together
                return torch.optim.SGD(leaves, lr=rate, momentum=0.9, weight_decay=decay)

            self.optimizers[step.key] = StackedOptimizer(
                [self.layout.straight(t) for t in self.parameters.values()], make
            )
        return self.optimizers[step.key]

    def _set_dropout_keys(self, taking: list[int], rows: Tensor | None) -> None:
        """Set a new mask for every model that takes the step; a mask depends only on the steps that its model took."""
        keys = [(self.dropout_seeds[k] + 0x9E3779B9 * self.steps_taken[k]) & 0x7FFFFFFF for k in taking]
        drawn = torch.tensor(keys, dtype=torch.int32, device=self.device)
        for name in self.dropout_keys:
            self.buffers[name][slice(None) if rows is None else rows] = drawn

    def _dev_accuracy(self, live: list[int], epoch: int) -> list[float]:
        rows = None if len(live) == len(self.cohort.ids) else torch.tensor(live, device=self.device)
        records, valid = (_rows(t, rows) for t in self.dev)
        parameters = {n: self.layout.lay_out(_rows(t, rows)) for n, t in self.parameters.items()}
        buffers = {n: _rows(t, rows) for n, t in self.buffers.items()}
        self.template.eval()
        with torch.no_grad():
            cuts = torch.split(records, ASKED, dim=1)
            logits = torch.cat(
                [self.forward(parameters, buffers, rows_of(self.cohort.features, cut)) for cut in cuts], dim=1
            )
        _require_finite("output", logits, epoch)
        right = (logits.argmax(-1) == self.cohort.labels[records]) & valid
        shares: list[float] = (right.sum(1).double() / valid.sum(1)).tolist()
        return shares


def _require_finite(what: str, values: Tensor, epoch: int) -> None:
    if not torch.isfinite(values).all():
        raise InputError(f"training diverged in epoch {epoch}: the {what} is not finite; lower the learning rate")


def _rows(tensor: Tensor, rows: Tensor | None) -> Tensor:
    return tensor if rows is None else tensor[rows]


def _copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _padded(records: Sequence[Int64[np.ndarray, " _"]]) -> tuple[Int64[Tensor, "S D"], Bool[Tensor, "S D"]]:
    width = max(map(len, records))
    index, valid = np.zeros((len(records), width), np.int64), np.zeros((len(records), width), bool)
    for k, own in enumerate(records):
        index[k, : len(own)], valid[k, : len(own)] = own, True
    return torch.from_numpy(index), torch.from_numpy(valid)
