"""The models that run together, from their first step to the last.

The loop, for all models at once::

    for epoch:
        for step in place(plan_steps(defense.plan(epoch, ...))):  # (K, B) records and weights
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
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from wemem.data.batches import Step
from wemem.defenses import AdversarialTraining, Batch, Clipping, Defense, InferenceAdversary
from wemem.errors import DivergedError
from wemem.randomness import derive_seed
from wemem.training.adversary_turns import AdversaryTurns
from wemem.training.augment import augment, draw_views
from wemem.training.backends import Backend, forward_of, in_precision
from wemem.training.cohort import Cohort
from wemem.training.device import cuda_settings, side_stream
from wemem.training.dropout import SeededDropout
from wemem.training.ensemble import Ensemble
from wemem.training.layout import choose_layout
from wemem.training.optimizer import StackedOptimizer
from wemem.training.per_sample import PerSample
from wemem.training.placement import Keys, PlacedStep, place
from wemem.training.recipe import Recipe
from wemem.training.replay import Replay, cuda_graphs
from wemem.training.schedule import WeightAverage, rate_at, remembered
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
        self.forward = in_precision(
            forward_of(backend, self.template, recipe.batch_size), recipe.precision, self.device
        )
        self.layout = choose_layout(backend, self.template, self.device)
        self.parameters = {n: self.layout.lay_out(t) for n, t in cohort.ensemble.parameters.items()}
        self.buffers = dict(cohort.ensemble.buffers)
        self.average = WeightAverage(self.parameters, self.buffers) if recipe.average else None
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
        self.dropout_names = [f"{n}.key" for n, m in self.template.named_modules() if isinstance(m, SeededDropout)]
        self.dropout_seeds = [derive_seed(seed, "dropout") for seed in cohort.seeds]
        self.steps_taken = [0] * len(cohort.ids)
        self.records_seen = [0] * len(cohort.ids)
        self.dev = [tensor.to(self.device) for tensor in _padded(cohort.dev)]
        self.finite = torch.ones((), dtype=torch.bool, device=self.device)
        # noise and turns of an adversary are drawn on the CPU, other losses may depend on the epoch;
        # a recorded learning rate would stay as it is
        computed = self.per_sample is not None or self.adversary_turns is not None or defense.replaces_loss
        steady = recipe.schedule == "constant" and not recipe.average and not computed
        recorded = self.device.type == "cuda" and cuda_settings().replay and steady
        self.replay = Replay(cuda_graphs) if recorded else None

    def trial(self, step: Step) -> None:
        """Run a step of all models and an evaluation on their dev records, which takes the peak memory of training."""
        everyone = list(range(len(self.cohort.ids)))
        for placed in self.place([step], everyone):
            self.step(placed, 0)
        self._dev_accuracy(everyone, 0)

    def run(self, on_epoch: OnEpoch) -> Trained:
        """Train until every model has stopped, and return their checkpoints, on the CPU, with their histories."""
        if self.replay is None:
            return self._run(on_epoch)
        # recording is not possible on the default stream
        stream, before = side_stream(self.device, 0), torch.cuda.current_stream(self.device)
        stream.wait_stream(before)
        with torch.cuda.stream(stream):
            trained = self._run(on_epoch)
        before.wait_stream(stream)
        return trained

    def _run(self, on_epoch: OnEpoch) -> Trained:
        count = len(self.cohort.ids)
        best, best_buffers = _copies(self.parameters), _copies(self.buffers)
        curves: list[list[float]] = [[] for _ in range(count)]
        live = list(range(count))
        epochs = self.defense.epochs(self.recipe.epochs)
        for epoch in range(epochs):
            for step in self.place(self.plan(epoch), live, epoch):
                self.step(step, epoch)
            if self.device.type == "cuda" and epoch + 1 < epochs:
                self.plan(epoch + 1)  # while the GPU computes; the plan is kept
            accuracy, better = self._dev_accuracy(live, epoch), []
            for k, value in zip(live, accuracy, strict=True):
                if self.recipe.keep == "last" or value > max(curves[k], default=-1.0):
                    better.append(k)
                curves[k].append(value)
            rows = torch.tensor(better, dtype=torch.int64, device=self.device)
            for best_values, current in zip((best, best_buffers), self._evaluated, strict=True):
                for name, tensor in current.items():
                    best_values[name][rows] = tensor[rows]
            training = [k for k in live if not self._patience_is_out(curves[k])]
            if self.replay is not None and training != live:
                self.replay.forget()
            live = training
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

    def place(self, steps: Sequence[Step], live: Sequence[int], epoch: int = 0) -> list[PlacedStep]:
        """Place the steps of an epoch in which some of the live models have records."""
        keys, epochs = Keys(self._dropout_key, self._draw_views), self.defense.epochs(self.recipe.epochs)
        span = epoch / epochs, (epoch + 1) / epochs
        return place(steps, self.cohort.ids, live, self.steps_taken, keys, self.device, span)

    def step(self, step: PlacedStep, epoch: int) -> None:
        """Take one optimizer step of the models that have records in it."""
        if self.replay is None:
            self._compute(step, epoch)
        else:
            kind = step.key, tuple(step.records.shape), tuple(step.taking), self._optimizer(step).division
            self.replay.step(kind, step, lambda step: self._compute(step, epoch))
        for k, seen in zip(step.taking, step.seen, strict=True):
            self.steps_taken[k] += 1
            self.records_seen[k] += seen

    def _compute(self, step: PlacedStep, epoch: int) -> None:
        """Compute a step on the device; nothing waits for a value, and a loss that is not finite is only noted."""
        rows = None if len(step.taking) == len(self.cohort.ids) else step.rows
        for name in self.dropout_names:
            self.buffers[name][slice(None) if rows is None else rows] = step.dropout_keys
        parameters = {n: _rows(t, rows).detach().requires_grad_() for n, t in self.parameters.items()}
        buffers = {n: _rows(t, rows) for n, t in self.buffers.items()}
        self.template.train()
        if self.adversary_turns is not None:
            self.adversary_turns.play(parameters, buffers, step.taking, step.taken)
        x = augment(self.cohort.views.numbered(step.rows, step.records), self.recipe.augment, step.drawn)
        labels = self.cohort.labels[self.cohort.views.of(step.records)]
        if self.per_sample is None:
            logits = self.forward(parameters, buffers, x)
            loss = self.defense.loss(self._batch(step, logits, labels, epoch))
            self.finite &= torch.isfinite(loss).all()
            gradients = torch.autograd.grad(loss.sum(), list(parameters.values()), allow_unused=True)
            self._update(step, gradients)
        else:
            own = self.per_sample.gradients(
                parameters, buffers, x, labels, step.host_weights, step.taking, step.taken
            )  # fmt: skip
            for gradient in own:
                self.finite &= torch.isfinite(gradient).all()
            self._update(step, own)
        if rows is not None:
            for name, tensor in buffers.items():
                self.buffers[name][rows] = tensor
        if self.average is not None:
            decay = remembered(step.share, self.recipe.average)
            self.average.update(self.parameters, self.buffers, rows, decay)

    def _batch(self, step: PlacedStep, logits: Tensor, labels: Tensor, epoch: int) -> Batch:
        """The outputs of a step, with the other numbers of their records that the defense's loss uses."""
        who, cohort = step.rows[:, None], self.cohort
        return Batch(
            logits, labels, step.weights, epoch,
            teacher_log_probs=None if cohort.teacher_log_probs is None else cohort.teacher_log_probs[who, step.records],
            risk=None if cohort.risk is None else cohort.risk[who, cohort.views.of(step.records)],
            membership_log_probability=self._membership(step.taking, logits, labels),
        )  # fmt: skip

    def _membership(self, taking: list[int], logits: Tensor, labels: Tensor) -> Tensor | None:
        if self.adversary_turns is None:
            return None
        adversary: InferenceAdversary = self.adversary_turns.inference_adversary
        return adversary.membership_log_probability(taking, logits, labels)

    def _update(self, step: PlacedStep, gradients: tuple[Tensor | None, ...]) -> None:
        straight = [None if g is None else self.layout.straight(self.layout.lay_out(g)) for g in gradients]
        optimizer = self._optimizer(step)
        if self.recipe.schedule != "constant":
            optimizer.learning_rate = self.recipe.learning_rate * rate_at(self.recipe.schedule, step.done)
        optimizer.step(step.taking, straight)
        for name, pruned in self.pruned.items():
            self.parameters[name].masked_fill_(pruned, 0.0)

    def _optimizer(self, step: PlacedStep) -> StackedOptimizer:
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

    @property
    def _evaluated(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The parameters and buffers that dev accuracy and checkpoint are of."""
        return (self.parameters, self.buffers) if self.average is None else (
            self.average.parameters, self.average.buffers
        )  # fmt: skip

    def _dev_accuracy(self, live: list[int], epoch: int) -> list[float]:
        rows = None if len(live) == len(self.cohort.ids) else torch.tensor(live, device=self.device)
        records, valid = (_rows(t, rows) for t in self.dev)
        evaluated, statistics = self._evaluated
        parameters = {n: self.layout.lay_out(_rows(t, rows)) for n, t in evaluated.items()}
        buffers = {n: _rows(t, rows) for n, t in statistics.items()}
        self.template.eval()
        with torch.no_grad():
            cuts = torch.split(records, ASKED, dim=1)
            logits = torch.cat(
                [self.forward(parameters, buffers, rows_of(self.cohort.features, cut)) for cut in cuts], dim=1
            )
        right = (logits.argmax(-1) == self.cohort.labels[records]) & valid
        shares = right.sum(1).double() / valid.sum(1)
        # the only values of an epoch for which the CPU waits
        finite, outputs, *accuracy = torch.cat(
            [self.finite.double()[None], torch.isfinite(logits).all().double()[None], shares]
        ).tolist()
        for what, is_finite in (("gradient" if self.per_sample else "loss", finite), ("output", outputs)):
            if not is_finite:
                raise DivergedError(
                    f"training diverged in epoch {epoch}: the {what} is not finite; lower the learning rate"
                )
        return list(accuracy)

    def _dropout_key(self, model: int, taken: int) -> int:
        """The key of a model's dropout masks, which depend only on the number of steps that it has taken."""
        return (self.dropout_seeds[model] + 0x9E3779B9 * taken) & 0x7FFFFFFF

    def _draw_views(self, model: int, taken: int, batch: int) -> Float32[np.ndarray, "B 5"]:
        """The draws of the augmentation of a model's batch."""
        if self.recipe.augment == "none":
            return draw_views("none", 0, batch)
        return draw_views(self.recipe.augment, derive_seed(self.cohort.seeds[model], "view", taken), batch)


def _rows(tensor: Tensor, rows: Tensor | None) -> Tensor:
    return tensor if rows is None else tensor[rows]


def _copies(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.items()}


def _padded(records: Sequence[Int64[np.ndarray, " _"]]) -> tuple[Int64[Tensor, "S D"], Bool[Tensor, "S D"]]:
    width = max(map(len, records))
    index, valid = np.zeros((len(records), width), np.int64), np.zeros((len(records), width), bool)
    for k, rows in enumerate(records):
        index[k, : len(rows)], valid[k, : len(rows)] = rows, True
    return torch.from_numpy(index), torch.from_numpy(valid)
