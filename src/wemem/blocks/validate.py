"""Problems of a model, loader or optimizer, each with its remedy."""

from collections.abc import Sized
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lbfgs import LBFGS
from torch.utils.data import (
    DataLoader,
    DistributedSampler,
    IterableDataset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from wemem.blocks.wrapped import number_of_records
from wemem.defenses import AdversarialTraining, Clipping, Defense, RoundObservation
from wemem.models.custom import old_norm
from wemem.pruning import Pruning


def problems_of(defense: Defense, pruning: Pruning, model: nn.Module, loader: DataLoader[Any] | None) -> list[str]:
    """List every problem of pruning a model under a defense in a user's loop.

    Args:
        defense: the defense.
        pruning: schedule and criterion.
        model: the model to prune.
        loader: its training data, if known.
    """
    problems = [reason] if (reason := defense.incompatibility_reason(model)) else []
    if reason := loss_problem(defense):
        problems.append(reason)
    if defense.capability(RoundObservation) is not None:
        problems.append(f"{defense.name} observes the model before each round; use wemem prune")
    if pruning.criterion.reads_gradients:
        problems.append(
            f"{pruning.criterion!r} reads gradients between rounds; use wemem prune, or a criterion of weights"
        )
    if not any(p.requires_grad for p in model.parameters()):
        problems.append("the model has no trainable parameter; unfreeze some")
    if (layer := old_norm(model)) is not None:
        problems.append(
            f"{layer!r} has a norm of torch.nn.utils, under which no copy can be made; use nn.utils.parametrizations"
        )
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        problems.append("the model has lazy layers without weights; run one batch through it first")
    if loader is None:
        return problems
    if of_loader := loader_problems(loader):
        return [*problems, *of_loader]
    if batch_size_of(loader) == 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
        problems.append("batches of one record under BatchNorm; raise batch_size")
    return problems


def loss_problem(defense: Defense) -> str | None:
    """Give the reason why a defense has no loss for a plain loop; None if it has one."""
    if defense.capability(Clipping) is not None:
        return f"{defense.name} clips each record's gradient; use Opacus in your loop, or wemem prune"
    if defense.capability(AdversarialTraining) is not None:
        return f"{defense.name} trains an adversary between steps; use wemem.blocks.AdversarialLoss yourself"
    return None


def loader_problems(loader: DataLoader[Any]) -> list[str]:
    """List what keeps a defense from planning a loader's batches.

    Args:
        loader: the user's loader.
    """
    if not isinstance(loader, DataLoader):
        return [f"expected a DataLoader, got {type(loader).__name__}; give your own, and prepare it once"]
    if isinstance(loader.dataset, IterableDataset):
        return ["the data set is iterable, so its records have no numbers; give a map-style data set"]
    if not batch_size_of(loader):
        return ["the loader's batch sampler has no batch_size; give the loader batch_size instead"]
    if (sampler := _choosing_sampler(loader)) is not None:
        return [
            f"the loader's {sampler} chooses other records than the defense would; leave it out, and for a part of the "
            "records wrap the data set in torch.utils.data.Subset"
        ]
    return []


def _choosing_sampler(loader: DataLoader[Any]) -> str | None:
    """The sampler of a loader that does not give every record once, if it has one."""
    for sampler in (loader.sampler, getattr(loader.batch_sampler, "sampler", None)):
        if isinstance(sampler, WeightedRandomSampler | SubsetRandomSampler) or getattr(sampler, "replacement", False):
            return type(sampler).__name__
        fewer = isinstance(sampler, Sized) and len(sampler) < number_of_records(loader.dataset)
        if fewer and not isinstance(sampler, DistributedSampler):
            return type(sampler).__name__
    return None


def batch_size_of(loader: DataLoader[Any]) -> int:
    """Give the records of a batch, also of a loader that another library wrapped; 0 if it is
    unknown.
    """
    return int(loader.batch_size or getattr(loader.batch_sampler, "batch_size", None) or 0)


def optimizer_problems(optimizer: Any, model: nn.Module) -> list[str]:
    """List what keeps an optimizer from training a model.

    Args:
        optimizer: the optimizer, or a wrapper of one.
        model: the plain module.
    """
    inner = optimizer
    while isinstance(getattr(inner, "optimizer", None), Optimizer):
        inner = inner.optimizer
    if not isinstance(inner, Optimizer):
        return [f"expected a torch optimizer, got {type(optimizer).__name__}; give the one that your loop steps"]
    if isinstance(inner, LBFGS):
        return ["LBFGS evaluates a batch several times within a step, between which no mask holds; use SGD or Adam"]
    known = {id(p) for group in inner.param_groups for p in group["params"]}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in known]
    if missing:
        return [
            f"the optimizer does not hold the parameter {missing[0]!r}; build it from this module, after "
            "freezing and moving it"
        ]
    return []
