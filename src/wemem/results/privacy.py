"""Privacy accounting for DP-SGD, by the accountant of Opacus (Rényi DP: Mironov et al.,
arXiv:1908.10530).
"""

import warnings
from math import inf, isfinite
from typing import Any

from wemem.defenses import DPSGD, Chain, Defense
from wemem.errors import InputError

#: Training that the ε of a study covers; :class:`wemem.defenses.DPSGD` explains why it is nominal.
FINE_TUNING, TRAINING = "victim_fine_tuning", "victim_training"


def epsilon(noise: float, sample_rate: float, steps: int, delta: float) -> float:
    """The ε of (ε, δ)-differential privacy of the subsampled Gaussian mechanism.

    Neighbouring data sets differ by adding or removing one record. The bound holds for steps whose
    records are drawn independently. For training with :class:`wemem.defenses.DPSGD` it is nominal
    and covers only a part of the training; that class lists the gaps.

    Args:
        noise: σ, the standard deviation of the noise in units of the clipping norm; 0 gives
            infinity.
        sample_rate: the probability that a record is in a step, in (0, 1]: the batch size divided
            by the number of training records.
        steps: the number of optimizer steps over all rounds, at least 1.
        delta: δ in (0, 1), well below 1 / training records.

    Returns:
        An upper bound on ε, in nats.

    Raises:
        InputError: a value is out of range, or Opacus is not installed.
    """
    if not noise >= 0:
        raise InputError(f"noise must be 0 or more, got {noise}")
    if not 0 < sample_rate <= 1:
        raise InputError(
            f"sample_rate must be in (0, 1], got {sample_rate}; divide the batch size by the number of training records"
        )
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}")
    if not 0 < delta < 1:
        raise InputError(f"delta must be in (0, 1), got {delta}; choose it below 1 / training records")
    try:
        from opacus.accountants import RDPAccountant
    except ImportError as error:
        raise InputError("expected Opacus to account for privacy, got none; pip install wemem[dp]") from error
    if noise**2 == 0:  # the accountant divides by it
        return inf
    accountant = RDPAccountant()
    accountant.history = [(noise, sample_rate, steps)]
    with warnings.catch_warnings():
        # the accountant warns if another order could give a tighter bound; the bound of every order
        # holds
        warnings.filterwarnings("ignore", message="Optimal order is")
        return float(accountant.get_epsilon(delta=delta))


def account(defense: Defense, records: int, batch_size: int, steps: int) -> dict[str, Any] | None:
    """The ``privacy`` object of ``results.json``: the nominal ε of one model trained with DP-SGD.

    Args:
        defense: the defense under which the model was fine-tuned.
        records: n, the number of records of fine-tuning; δ is n ** -1.1.
        batch_size: the batch size of the recipe.
        steps: the number of optimizer steps over all rounds, with those after the best checkpoint.

    Returns:
        None for a defense without DP-SGD. If there is no finite ε, ``epsilon`` is None and ``note``
        is the reason: ``no_noise``, ``noise_too_small``, ``no_accountant`` or ``out_of_range``.
    """
    parts = defense.parts if isinstance(defense, Chain) else (defense,)
    dp_sgd = next((part for part in parts if isinstance(part, DPSGD)), None)
    if dp_sgd is None:
        return None
    delta, sample_rate = records**-1.1, min(1.0, batch_size / records)
    payload = {"delta": delta, "sample_rate": sample_rate, "steps": steps, "covers": _covered(defense, dp_sgd)}
    if dp_sgd.noise == 0:
        return {"epsilon": None, **payload, "note": "no_noise"}
    try:
        value = epsilon(dp_sgd.noise, sample_rate, steps, delta)
    except InputError as error:
        missing = isinstance(error.__cause__, ImportError)
        return {"epsilon": None, **payload, "note": "no_accountant" if missing else "out_of_range"}
    if not isfinite(value):
        return {"epsilon": None, **payload, "note": "noise_too_small"}
    return {"epsilon": value, **payload}


def _covered(defense: Defense, dp_sgd: DPSGD) -> str:
    """The training that ε covers; other parts of a chain may learn from the records without noise."""
    return TRAINING if dp_sgd.start == "fresh" and not isinstance(defense, Chain) else FINE_TUNING
