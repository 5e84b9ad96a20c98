"""AdvReg, adversarial regularization: train against an attacker (Nasr et al., CCS 2018).

An inference network ``h`` estimates from the posterior ``f(x)`` and the one-hot label ``y`` the
probability that a record is one of the model's training records ``D`` and not one of its dev
records ``D'``, the reference set. The two networks play::

    h maximizes   gain(f, h) = 1/2 mean_D log h(f(x), y) + 1/2 mean_D' log(1 - h(f(x), y))
    f minimizes   mean CE + theta * mean log h(f(x), y)            over the batch, a part of D

The last term is minus the attacker's loss on the batch: the loss is ``CE - theta * (attacker's
loss)``. As in the source's algorithm the model's step uses the first half of the gain only, on
training records.

The source leaves three points open. They are decided here:

* The two alternate step by step. ``h`` takes :data:`TURNS` turns before every step of the model,
  each on a batch of training records and one of as many dev records, drawn anew and computed in
  evaluation mode, as an attacker would see them.
* ``h`` is new in every round, because pruning has changed its inputs. It takes :data:`WARM_UP`
  turns before the first step, so that it is of use from then on.
* ``h`` has :data:`WIDTHS` hidden units on posterior and label together, a tenth of the source's two
  streams, with ReLU and Adam. That is enough for the outputs of some hundred records.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import isfinite, sqrt

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import logsigmoid, one_hot, softplus

from wemem.defenses.base import Defense
from wemem.defenses.batch import Batch
from wemem.defenses.capabilities import AdversarialTraining, Capability
from wemem.defenses.inference_adversary import InferenceAdversary
from wemem.errors import InputError
from wemem.randomness import derive_seed

#: Hidden units of the inference network, layer by layer.
WIDTHS = (128, 64)
#: Its turns before the first step of the model, and before every step.
WARM_UP, TURNS = 100, 3
#: Adam's.
LEARNING_RATE = 3e-3


@dataclass(frozen=True)
class AdvReg(Defense):
    """Minimize the gain of an attacker that is trained along with the model.

    Args:
        theta: weight of the attacker's gain, λ in the source; 0 is plain fine-tuning without an
            attacker.

    Raises:
        InputError: a negative or infinite weight.

    >>> log_h = torch.tensor([[-0.5]])
    >>> one = torch.zeros(1, 1, 2), torch.tensor([[0]]), torch.ones(1, 1)
    >>> batch = Batch(*one, 0, membership_log_probability=log_h)
    >>> AdvReg().loss(batch)  # log 2 - 0.5
    tensor([0.1931])
    """

    theta: float = 1.0

    def __post_init__(self) -> None:
        if not (self.theta >= 0 and isfinite(self.theta)):
            raise InputError(f"theta must be finite and 0 or more, got {self.theta}; for no attacker use Undefended()")

    @property
    def name(self) -> str:
        return "advreg"

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        """Untrained inference networks, one for each model; none with weight 0."""
        return (AdversarialTraining(InferenceNetwork),) if self.theta > 0 else ()

    def loss(self, batch: Batch) -> Float[Tensor, " S"]:
        """Mean cross-entropy plus ``theta`` times the mean log-probability of membership."""
        plain = batch.mean(batch.cross_entropy())
        if self.theta == 0:
            return plain
        assert batch.membership_log_probability is not None  # computed by the trainer
        return plain + self.theta * batch.mean(batch.membership_log_probability)


class InferenceNetwork(InferenceAdversary):
    """One small attacker network for each model, which learns from that model's outputs only.

    Args:
        classes: number of classes, C.
        seeds: one per model, for the initial weights.
    """

    warm_up = WARM_UP
    turns = TURNS

    def __init__(self, classes: int, seeds: Sequence[int]) -> None:
        draws = [torch.Generator().manual_seed(derive_seed(seed, "opponent")) for seed in seeds]
        sizes = [2 * classes, *WIDTHS, 1]
        # layer by layer weights (K, in, out) and biases (K, 1, out), as nn.Linear draws them
        self.layers = [
            torch.stack([(2 * torch.rand(shape, generator=draw) - 1) / sqrt(before) for draw in draws])
            for before, after in pairwise(sizes)
            for shape in ((before, after), (1, after))
        ]
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        """Move the networks to a device, with an optimizer that has taken no step."""
        self.layers = [tensor.to(device) for tensor in self.layers]
        # a leaf for each model and tensor: a network that sits a turn out has no gradient and keeps
        # its Adam state
        models = range(len(self.layers[0]))
        self.leaves = [[torch.nn.Parameter(tensor[k]) for tensor in self.layers] for k in models]
        self.optimizer = torch.optim.Adam(
            [leaf for leaves in self.leaves for leaf in leaves], lr=LEARNING_RATE, fused=True
        )

    def learn(
        self, rows: Sequence[int], members: Float[Tensor, "S M C"], member_labels: Int64[Tensor, "S M"],
        others: Float[Tensor, "S M C"], other_labels: Int64[Tensor, "S M"],
    ) -> None:  # fmt: skip
        """Take one step of Adam up the gain."""
        layers = [tensor.requires_grad_() for tensor in self._of(rows)]
        inside = _evidence(layers, members, member_labels)
        outside = _evidence(layers, others, other_labels)
        loss = (softplus(-inside).mean(1) + softplus(outside).mean(1)) / 2
        gradients = torch.autograd.grad(loss.sum(), layers)
        self.optimizer.zero_grad(set_to_none=True)
        for row, k in enumerate(rows):
            for leaf, gradient in zip(self.leaves[k], gradients, strict=True):
                leaf.grad = gradient[row]
        self.optimizer.step()

    def membership_log_probability(
        self, rows: Sequence[int], logits: Float[Tensor, "S B C"], labels: Int64[Tensor, "S B"]
    ) -> Float[Tensor, "S B"]:
        """Log-probability that each record is a member, ``log h``."""
        return logsigmoid(_evidence(self._of(rows), logits, labels))

    def _of(self, rows: Sequence[int]) -> list[Tensor]:
        index = torch.tensor(rows, device=self.layers[0].device)
        return [tensor[index] for tensor in self.layers]


def _evidence(layers: Sequence[Tensor], logits: Float[Tensor, "S B C"], labels: Int64[Tensor, "S B"]) -> Tensor:
    """Log-odds of membership, shape ``(S, B)``."""
    classes = logits.shape[-1]
    x = torch.cat([torch.softmax(logits, -1), one_hot(labels, classes).to(logits.dtype)], -1)
    for i in range(0, len(layers), 2):
        x = torch.baddbmm(layers[i + 1], x.relu() if i else x, layers[i])
    return x[..., 0]
