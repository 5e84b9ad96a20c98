"""The steps of an epoch with everything that they need, on the device of the models.

Records, weights, keys and random draws are prepared on the CPU. Those of all steps of an epoch are
moved to a GPU together, from pinned memory, so that no step of the epoch waits for a copy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Int64
from torch import Tensor

from wemem.data.batches import Step


@dataclass(frozen=True, eq=False)
class PlacedStep:
    """One optimizer step of the S models that take part in it.

    Args:
        key: the name of the optimizer state.
        weight_decay: the L2 decay; None means that of the recipe.
        taking: the places of the S models, in rising order.
        taken: the number of steps that each of these models has taken before.
        seen: the number of records that each of these models sees.
        done: the share of the training that is done in the middle of the step.
        share: the share of the training that the step is.
        host_weights: the weights of the records on the CPU, 1 for a record and 0 for padding.
        rows: the places of the S models on the device.
        records: the numbers of the records of each model.
        weights: the weights on the device.
        dropout_keys: the key of each model's dropout masks.
        drawn: the random draws of the augmentation, one row for each record of all models.
    """

    key: str
    weight_decay: float | None
    taking: list[int]
    taken: list[int]
    seen: list[int]
    done: float
    share: float
    host_weights: Float[Tensor, "S B"]
    rows: Int64[Tensor, " S"]
    records: Int64[Tensor, "S B"]
    weights: Float[Tensor, "S B"]
    dropout_keys: Int32[Tensor, " S"]
    drawn: Float[Tensor, "R 5"]

    def tensors(self) -> dict[str, Tensor]:
        """The tensors on the device, by their names."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "host_weights"}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class Keys:
    """The pure functions of (model, steps that it has taken) from which the random numbers of a step follow.

    Args:
        dropout: the key of the dropout masks.
        draws: the draws of the augmentation for so many records, ``(B, 5)``.
    """

    dropout: Callable[[int, int], int]
    draws: Callable[[int, int, int], Float32[np.ndarray, "B 5"]]


def place(
    steps: Sequence[Step], ids: Sequence[int], live: Sequence[int], taken: Sequence[int], keys: Keys,
    device: torch.device, span: tuple[float, float],
) -> list[PlacedStep]:  # fmt: skip
    """Place the steps in which some of the live models take part.

    Args:
        steps: the steps of all models of a plan, in their order.
        ids: the number of each model in the plan.
        live: the places of the models that still train, in rising order.
        taken: the number of steps that every model has taken before these.
        keys: the keys and draws of a model's step.
        device: the device of the models.
        span: the shares of the training that are done before and after these steps.
    """
    counts, placed = list(taken), []
    share = (span[1] - span[0]) / max(len(steps), 1)
    for i, step in enumerate(steps):
        weights = step.weights[ids]
        seen = weights.sum(1).astype(int).tolist()
        taking = [k for k in live if seen[k]]
        if not taking:
            continue
        before, width = [counts[k] for k in taking], weights.shape[1]
        drawn = [keys.draws(k, count, width) for k, count in zip(taking, before, strict=True)]
        dropout = [keys.dropout(k, count) for k, count in zip(taking, before, strict=True)]
        chosen = torch.from_numpy(weights[taking])
        placed.append(
            PlacedStep(
                step.key, step.weight_decay, taking, before, [seen[k] for k in taking],
                span[0] + (i + 0.5) * share, share, chosen,
                torch.tensor(taking), torch.from_numpy(step.records[[ids[k] for k in taking]]), chosen,
                torch.tensor(dropout, dtype=torch.int32), torch.from_numpy(np.concatenate(drawn)),
            )
        )  # fmt: skip
        for k in taking:
            counts[k] += 1
    return placed if device.type == "cpu" or not placed else _moved(placed, device)


def _moved(steps: Sequence[PlacedStep], device: torch.device) -> list[PlacedStep]:
    """Move the tensors of all steps, those of one name in one copy."""
    each = [step.tensors() for step in steps]
    moved: list[dict[str, Tensor]] = [{} for _ in steps]
    for name in each[0]:
        flat = torch.cat([tensors[name].flatten() for tensors in each])
        there = (flat.pin_memory() if device.type == "cuda" else flat).to(device, non_blocking=True)
        parts = torch.split(there, [tensors[name].numel() for tensors in each])
        for parts_of, tensors, part in zip(moved, each, parts, strict=True):
            parts_of[name] = part.view(tensors[name].shape)
    return [replace(step, **parts_of) for step, parts_of in zip(steps, moved, strict=True)]  # type: ignore[arg-type]
