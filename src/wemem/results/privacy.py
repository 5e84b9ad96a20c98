"""Privacy accounting for DP-SGD, by the accountant of Opacus (Rényi DP: Mironov et al., arXiv:1908.10530)."""

import warnings
from math import inf, isfinite
from typing import Any

from wemem.defenses import DPSGD, Chain, Defense
from wemem.errors import InputError

#: Training that the ε of a study covers; :class:`wemem.defenses.DPSGD` explains why it is nominal.
COVERS = "fine-tuning of the victim only"


def epsilon(noise: float, sample_rate: float, steps: int, delta: float) -> float:
    """The ε of (ε, δ)-differential privacy of the subsampled Gaussian mechanism.

    Neighbouring data sets differ by adding or removing one record. The bound holds for steps whose
    records are drawn independently. For training with :class:`wemem.defenses.DPSGD` it is nominal and
    covers fine-tuning only; that class lists the gaps.

    Args:
        noise: σ, the standard deviation of the noise in units of the clipping norm; 0 gives infinity.
        sample_rate: the probability that a record is in a step, in (0, 1]: the batch size divided by
            the number of training records.
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
        # the accountant warns if another order could give a tighter bound; the bound of every order holds
        warnings.filterwarnings("ignore", message="Optimal order is")
        return float(accountant.get_epsilon(delta=delta))


def account(defense: Defense, records: int, batch_size: int, steps: int) -> dict[str, Any] | None:
    """The ``privacy`` object of ``results.json``: the nominal ε of one model's fine-tuning under DP-SGD.

    Args:
        defense: under which it was fine-tuned.
        records: n, that it was fine-tuned on; δ is n ** -1.1, below one by their number.
        batch_size: of the recipe.
        steps: that were taken, over all rounds, those after the checkpoint that was kept included.

    Returns:
        None for a defense without DP-SGD. ``epsilon`` is None, and ``note`` says why, where there is no finite one.
    """
    parts = defense.parts if isinstance(defense, Chain) else (defense,)
    found = next((part for part in parts if isinstance(part, DPSGD)), None)
    if found is None:
        return None
    told = {"delta": records**-1.1, "sample_rate": min(1.0, batch_size / records), "steps": steps, "covers": COVERS}
    if found.noise == 0:
        return {"epsilon": None, **told, "note": "without noise there is no privacy guarantee"}
    try:
        value = epsilon(found.noise, told["sample_rate"], steps, told["delta"])
    except InputError as error:
        return {"epsilon": None, **told, "note": str(error)}
    if not isfinite(value):
        return {"epsilon": None, **told, "note": "the noise is too small for a finite epsilon"}
    return {"epsilon": value, **told}
