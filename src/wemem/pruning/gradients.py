"""The gradients on which first-order criteria rest.

For each weight, the root mean square of its gradient over batches::

    G(w) = sqrt(mean over batches of g_w^2),    g = gradient of the mean cross-entropy of a batch

The batches are all training records of the model itself, in a drawn order, and no other record.
The model is in evaluation mode, so that neither dropout nor batch statistics blur the gradients.
``w G(w)`` is then the root of the first-order estimate of the change of the loss when w is set to 0
(Molchanov et al., CVPR 2019, equation 8).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from wemem.data.batches import batch_bounds
from wemem.data.dataset import Dataset
from wemem.data.split import Role, Split
from wemem.errors import InputError
from wemem.randomness import generator
from wemem.training.device import choose_device
from wemem.training.ensemble import Ensemble

#: G by the name of a parameter, for K models.
Gradients = Mapping[str, Float[Tensor, "K ..."]]


def gradient_sizes(
    ensemble: Ensemble, data: Dataset, split: Split, *, seeds: Sequence[int], batch_size: int,
    device: torch.device | str = "cpu",
) -> Gradients:  # fmt: skip
    """Compute G of every parameter of every model, on the model's own training records.

    Args:
        ensemble: the K models.
        data: the data set.
        split: the roles of the records for each model.
        seeds: the seed of each model, from which the order of its records is drawn.
        batch_size: the number of records in a batch.
        device: the device that computes the gradients.

    Raises:
        InputError: a gradient is not finite.
    """
    where, sizes = choose_device(device), []
    for k in range(len(ensemble)):
        records = generator(seeds[k], "order").permutation(split.records(k, Role.TRAIN))
        squares: dict[str, Tensor] = {}
        batches = batch_bounds(len(records), batch_size)
        for start, end in batches:
            for name, gradient in _gradients(ensemble, k, data, records[start:end], where):
                squares[name] = squares.get(name, torch.zeros(())) + gradient.square().cpu() / len(batches)
        sizes.append({name: square.sqrt() for name, square in squares.items()})
    result = {name: torch.stack([of_model[name] for of_model in sizes]) for name in sizes[0]}
    if not all(size.isfinite().all() for size in result.values()):
        raise InputError("expected finite gradients for pruning, got NaN or infinity; lower the learning rate")
    return result


def _gradients(
    ensemble: Ensemble, model: int, data: Dataset, records: Int64[np.ndarray, " n"], device: torch.device
) -> Iterator[tuple[str, Tensor]]:
    module = ensemble.module(model).to(device)
    leaves = {name: p.requires_grad_() for name, p in module.named_parameters()}  # frozen weights too
    x, y = (torch.from_numpy(array[records]).to(device) for array in (data.features, data.labels))
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # which has no backward in evaluation mode
        loss = cross_entropy(module(x), y)
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return zip(leaves, gradients, strict=True)


def weighed(ensemble: Ensemble, gradients: Gradients) -> Ensemble:
    """Replace each weight by its product with G, of which first-order criteria take the size.

    Raises:
        InputError: the model computes its weights by a parametrization.
    """
    if any(hasattr(module, "parametrizations") for module in ensemble.template.modules()):
        raise InputError(
            "expected a model with plain weights for a criterion that reads gradients, got a parametrization "
            "(weight_norm, spectral_norm); use the method magnitude, or remove the parametrization"
        )

    def product(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: t * gradients[name] if name in gradients else t for name, t in state.items()}

    return replace(ensemble, parameters=product(ensemble.parameters), buffers=product(ensemble.buffers))
