"""Problems of a model, loader or optimizer, each with its remedy."""

from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset

from wemem.defenses import AdversarialTraining, Clipping, Defense, OutputPostprocessing, RoundObservation
from wemem.pruning import Pruning


def problems_of(defense: Defense, pruning: Pruning, model: nn.Module, loader: DataLoader[Any] | None) -> list[str]:
    """List every problem of pruning a model under a defense in a user's loop.

    Args:
        defense: the defense.
        pruning: schedule and criterion.
        model: the model to prune.
        loader: its training data, if known.
    """
    found = [reason] if (reason := defense.incompatibility_reason(model)) else []
    if defense.capability(Clipping) is not None:
        found.append(f"{defense.name} clips each record's gradient; use Opacus in your loop, or wemem.prune")
    if defense.capability(AdversarialTraining) is not None:
        found.append(f"{defense.name} trains an adversary between steps; use wemem.blocks.AdversarialLoss yourself")
    if defense.capability(RoundObservation) is not None:
        found.append(f"{defense.name} observes the model before each round; use wemem.prune")
    if not any(p.requires_grad for p in model.parameters()):
        found.append("the model has no trainable parameter; unfreeze some")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in model.parameters()):
        found.append("the model has lazy layers without weights; run one batch through it first")
    if loader is not None:
        if isinstance(loader.dataset, IterableDataset):
            found.append("the data set is iterable, so its records have no numbers; give a map-style data set")
        if loader.batch_size is None:
            found.append("the loader has a batch sampler of its own; give batch_size instead")
        elif loader.batch_size == 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            found.append("batches of one record under BatchNorm; raise batch_size")
    return found


def protects_answers_only(defense: Defense) -> bool:
    """True if the defense alters answers to queries, which a user's loop does not do."""
    return defense.capability(OutputPostprocessing) is not None


def optimizer_problems(optimizer: Any, model: nn.Module) -> list[str]:
    """List what keeps an optimizer from training a model.

    Args:
        optimizer: the optimizer, or a wrapper of one.
        model: the plain module.
    """
    inner = optimizer
    while not isinstance(inner, Optimizer) and hasattr(inner, "optimizer"):
        inner = inner.optimizer
    if not isinstance(inner, Optimizer):
        return [f"expected a torch optimizer, got {type(optimizer).__name__}; give the one that your loop steps"]
    known = {id(p) for group in inner.param_groups for p in group["params"]}
    missing = [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in known]
    if missing:
        return [
            f"the optimizer does not hold the parameter {missing[0]!r}; build it from this module, after "
            "freezing and moving it"
        ]
    return []
