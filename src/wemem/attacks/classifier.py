"""Attacks by a neural network that is trained on the outputs of shadows, whose members are known.

The published recipes take 100 epochs of SGD on the probabilities as they are. Two changes reach the
same held-out quality in some four epochs:

* *The same information on another scale.* Probabilities enter as log-odds, standardized: what tells
  members from non-members is how far beyond 0.999 a probability lies, which a network hardly sees
  on the linear scale.
* *AdamW with a one-cycle learning rate* (Smith & Topin 2019), a fixed number of steps whatever the
  number of shadows, and the network of the step where the loss on held-out shadow records was
  least.

A record that several shadows share is held out of all of them or of none, so that the held-out loss
is not of records the network has seen under another shadow.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from scipy.special import expit, log_softmax
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from wemem.attacks.base import Attack, Scores
from wemem.attacks.learned import Rows, shadow_rows
from wemem.errors import InputError
from wemem.randomness import derive_seed, generator
from wemem.signals import Signals, logit_confidence

#: Share of the shadows' records on which the step to keep is chosen.
HOLDOUT = 0.1
#: Times the held-out loss is looked at while training.
CHECKS = 8
#: Fewer steps are no one-cycle.
FEWEST_STEPS = 10
#: Log-odds are cut here, so that no single absurd output sets the scale of all.
LARGEST_LOG_ODDS = 100.0
#: Records scored at a time.
BLOCK = 8192


@dataclass(frozen=True)
class ClassifierAttack(Attack):
    """A network trained on all shadows' audited rows pooled. Its score is a probability of
    membership.

    Members and non-members weigh the same in the loss, so 0.5 is the balanced decision.

    Args:
        steps: optimizer steps.
        batch: rows in a step.
        learning_rate: the highest of the cycle.
        dropout: probability of dropping a unit.
    """

    steps: int = 160
    batch: int = 256
    learning_rate: float = 2e-3
    dropout: float = 0.2

    layout = "disjoint"
    thresholds = "half"

    def __post_init__(self) -> None:
        if self.steps < FEWEST_STEPS:
            raise InputError(f"attack {self.name!r} expected steps >= {FEWEST_STEPS}, got {self.steps}")
        if self.batch < 1:
            raise InputError(f"attack {self.name!r} expected batch >= 1, got {self.batch}")
        if not 0 < self.learning_rate < math.inf:
            raise InputError(f"attack {self.name!r} expected a positive learning_rate, got {self.learning_rate}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"attack {self.name!r} expected 0 <= dropout < 1, got {self.dropout}")

    def score(self, signals: Signals, target: int, *, seed: int) -> Scores:
        shadows = list(shadow_rows(signals, target))
        records = np.concatenate([signals.records[rows] for _, rows, _ in shadows])
        member = np.concatenate([is_member for _, _, is_member in shadows])
        held_out = hold_out(records, seed=derive_seed(seed, "attack/holdout", self.name))
        labels = member[~held_out]
        if labels.all() or not labels.any():
            raise InputError(
                f"attack {self.name!r} expected members and non-members among the shadows' records, got "
                f"{int(labels.sum())} members of {len(labels)} to learn from; give the shadows more records of "
                "both kinds"
            )
        learned = np.concatenate([self.inputs(signals, k, rows) for k, rows, _ in shadows])
        audited = self.inputs(signals, target, signals.audited(target))
        center, scale = learned[~held_out].mean(axis=0), learned[~held_out].std(axis=0)
        scale[scale < 1e-9] = 1.0
        x, own = (torch.from_numpy(((a - center) / scale).astype(np.float32)) for a in (learned, audited))
        # Initial weights, dropout and order draw from the CPU's stream, which is put back
        # afterwards.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derive_seed(seed, "attack/train", self.name))
            network = self.network(x.shape[1], signals.classes)
            self._train(network, x, torch.from_numpy(member.astype(np.float32)), torch.from_numpy(held_out))
        return np.asarray(expit(_evaluate(network, own).double().numpy()))

    def _train(
        self, network: nn.Module, x: Float32[Tensor, "n F"], member: Float32[Tensor, " n"], held_out: Tensor
    ) -> None:
        """Fit ``network`` in place; it ends as it was at the check with the least held-out loss."""
        share = member[~held_out].mean()
        weight = torch.where(member > 0, 0.5 / share, 0.5 / (1 - share))
        unseen, truth, unseen_weight = x[held_out], member[held_out], weight[held_out]
        x, member, weight = x[~held_out], member[~held_out], weight[~held_out]
        optimizer = torch.optim.AdamW(network.parameters(), lr=self.learning_rate, weight_decay=1e-2, fused=True)
        cycle = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, self.learning_rate, total_steps=self.steps, pct_start=0.2
        )
        least, best = math.inf, deepcopy(network.state_dict())
        every = self.steps / CHECKS
        for step, rows in enumerate(islice(_batches(len(x), self.batch), self.steps), start=1):
            network.train()
            optimizer.zero_grad()
            logits = network(x[rows])[:, 0]
            torch.autograd.backward(binary_cross_entropy_with_logits(logits, member[rows], weight=weight[rows]))
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            cycle.step()
            if step // every > (step - 1) // every:
                loss = binary_cross_entropy_with_logits(_evaluate(network, unseen), truth, weight=unseen_weight).item()
                if loss < least:
                    least, best = loss, deepcopy(network.state_dict())
        if not math.isfinite(least):
            raise InputError(
                f"attack {self.name!r} expected a finite loss while training, got none; lower learning_rate, which is "
                f"{self.learning_rate}"
            )
        network.load_state_dict(best)

    @abstractmethod
    def inputs(self, signals: Signals, model: int, rows: Rows) -> Float[np.ndarray, "n F"]:
        """Inputs of the network for one model's outputs on some rows, before standardization."""

    @abstractmethod
    def network(self, width: int, classes: int) -> nn.Module:
        """An untrained network from ``(n, width)`` inputs to ``(n, 1)`` log-odds of membership."""


def hold_out(records: Int64[np.ndarray, " n"], *, seed: int) -> Bool[np.ndarray, " n"]:
    """Mark the rows to hold out: those of a random tenth of the records, at least one, with every
    row of each.

    Raises:
        InputError: fewer than two records.

    >>> rows = hold_out(np.array([7, 8, 9, 7, 8, 9]), seed=0)
    >>> int(rows.sum()), bool((rows[:3] == rows[3:]).all())
    (2, True)
    """
    distinct = np.unique(records)
    if len(distinct) < 2:
        raise InputError(f"expected at least 2 shadow records to learn from, got {len(distinct)}; bring more records")
    drawn = generator(seed, "holdout").permutation(distinct)[: max(1, round(HOLDOUT * len(distinct)))]
    return np.asarray(np.isin(records, drawn))


def log_odds(logits: Float[np.ndarray, "n C"]) -> Float[np.ndarray, "n C"]:
    """``log(p_c / (1 - p_c))`` of every class, float64, cut at ±100.

    From logits, for the most probable class by :func:`~wemem.signals.logit_confidence`: where ``p``
    rounds to 1 its order is kept.

    >>> log_odds(np.log([[0.5, 0.25, 0.25]])).round(4)  # log 1, log 1/3, log 1/3
    array([[ 0.    , -1.0986, -1.0986]])
    """
    log_p = log_softmax(logits.astype(np.float64), axis=1)
    odds = log_p - np.log1p(-np.minimum(np.exp(log_p), 0.5))
    top = logits.argmax(axis=1)
    odds[np.arange(len(odds)), top] = logit_confidence(logits, top)
    return np.asarray(np.clip(odds, -LARGEST_LOG_ODDS, LARGEST_LOG_ODDS))


def own_class_first(odds: Float[np.ndarray, "n C"], labels: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "n C"]:
    """Classes in the order in which a network is to see them: the record's own, then the others by
    falling odds.

    >>> own_class_first(np.array([[3.0, 1.0, 2.0]]), np.array([1]))
    array([[1, 0, 2]])
    """
    key = -odds
    key[np.arange(len(labels)), labels] = -np.inf
    return np.argsort(key, axis=1, kind="stable")


def _batches(n: int, batch: int) -> Iterator[Tensor]:
    """Row numbers of one random pass after another, without end."""
    while True:
        yield from torch.split(torch.randperm(n), batch)


def _evaluate(network: nn.Module, x: Float32[Tensor, "n F"]) -> Float32[Tensor, " n"]:
    """The network's log-odds, in evaluation mode, some rows at a time."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(rows)[:, 0] for rows in torch.split(x, BLOCK)])
