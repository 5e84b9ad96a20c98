"""DP-SGD: clipped gradients with noise, differentially private (Abadi et al., CCS 2016).

The gradient ``g_i`` of each of the ``B`` records of a step is clipped to the norm ``C``, and
Gaussian noise is added to their sum::

    g = (Σ_i g_i · min(1, C / ‖g_i‖₂) + N(0, σ²C² I)) / B

The norm is over all trainable parameters of a model together; pruned weights count as 0. The
optimizer then steps on ``g`` as it would on any gradient: Adam, momentum and weight decay are
post-processing and cost no privacy.

**Meaning of ε.** :func:`wemem.results.privacy.epsilon` gives the (ε, δ) of the analysed algorithm.
Training departs from that algorithm, so its ε is a nominal figure and no proven bound for the
pruned models:

* Batches are cut from a shuffled order, whereas the accountant assumes that each record enters each
  step at random by itself (Poisson sampling). ``B`` is the number of records in the batch, not its
  expectation.
* Early stopping and the choice of the best checkpoint use the dev records without noise. At best
  the training records are private, and the number of steps is itself an outcome.
* With ``start="dense"`` it covers fine-tuning only. The original model was trained on the same
  records without noise, and pruning ranks its weights: neither is covered. With ``start="fresh"``
  new weights are trained by DP-SGD from the first round on, which prunes by their random values,
  and later rounds rank weights that DP-SGD trained, which is post-processing. It then covers all
  training of the released weights, which DP-SGD is compared by. Neither covers memorization scores,
  the statistics by which tables are standardized, or settings chosen by results.
* In a chain, a sliding window and groups of risky records show a record in other batches and more
  or less often than the sample rate ``B / n``, and choose by scores that come from the data.
* The noise follows from the seed, so that a study can be repeated. Anyone who knows the seed can
  remove it.

The measured leakage under the attacks of this package holds without any proof.
"""

from dataclasses import dataclass, field
from math import isfinite

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from wemem.defenses.base import Defense
from wemem.defenses.capabilities import Capability, FreshStart, Start
from wemem.defenses.clipping import Clipping
from wemem.errors import InputError
from wemem.settings import ADDED

#: The least noise that remains of a sum with gradients of the size of the clip: float32 has 24 bits.
LEAST_NOISE = 2.0**-20


@dataclass(frozen=True)
class DPSGD(Defense):
    """Clip every record's gradient and add noise to the sum.

    Args:
        clip: C, the largest L2 norm of one record's gradient.
        noise: σ, the standard deviation of the noise in units of ``clip``; 0 only clips, and gives
            no privacy.
        start: ``fresh`` trains new weights from the first round on; ``dense`` continues from the
            dense model, which was trained without noise.

    Raises:
        InputError: a clip that is not positive, a noise that is negative or below
            :data:`LEAST_NOISE`, or another start.

    >>> DPSGD(clip=2.0, noise=0.5).capabilities
    (Clipping(norm=2.0, noise=0.5),)
    """

    clip: float = 1.0
    noise: float = 1.0
    start: Start = field(default="dense", metadata=ADDED)

    @property
    def name(self) -> str:
        return "dpsgd"

    def __post_init__(self) -> None:
        if not (self.clip > 0 and isfinite(self.clip)):
            raise InputError(f"clip must be positive and finite, got {self.clip}; for no clipping use Undefended()")
        if not (self.noise >= 0 and isfinite(self.noise)):
            raise InputError(f"noise must be 0 or more and finite, got {self.noise}; for no noise give 0")
        if 0 < self.noise < LEAST_NOISE:
            raise InputError(
                f"noise must be 0 or at least {LEAST_NOISE:g}, got {self.noise}; less is lost when it is added to "
                "float32 gradients, and gives no privacy; for no noise give 0"
            )

        if self.start not in ("fresh", "dense"):
            raise InputError(f"start must be fresh or dense, got {self.start!r}")

    @property
    def capabilities(self) -> tuple[Capability, ...]:
        clipping = Clipping(self.clip, self.noise)
        return (clipping, FreshStart()) if self.start == "fresh" else (clipping,)

    def incompatibility_reason(self, model: nn.Module) -> str | None:
        """Reason that names the first BatchNorm layer, if there is one."""
        for name, module in model.named_modules():
            if isinstance(module, _BatchNorm):
                return (
                    f"dpsgd expected a model without BatchNorm, got {type(module).__name__} at {name or 'its root'!r}: "
                    "it makes a record's gradient depend on the other records of the batch, so that clipping it by "
                    "itself bounds nothing; use GroupNorm or LayerNorm"
                )
        return None
