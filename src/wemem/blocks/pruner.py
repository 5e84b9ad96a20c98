"""Iterative pruning of one module inside a training loop."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune
from torch.optim import Optimizer

from wemem.blocks.wrapped import Example, outputs_for
from wemem.errors import InputError
from wemem.pruning import Pruning
from wemem.training.ensemble import Ensemble


class _Called(nn.Module):
    """A module with fixed inputs, so that models of any signature are traced alike."""

    def __init__(self, model: nn.Module, inputs: Example) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, _: Tensor) -> Any:
        return outputs_for(self.model, self.inputs)


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        return {name: _on_cpu(item) for name, item in value.items()}
    return tuple(_on_cpu(item) for item in value) if isinstance(value, tuple | list) else value


class IterativePruner:
    """Prunes a module in place, round by round, and keeps pruned weights at exactly 0.

    Weights are pruned by masks, which :meth:`attach` applies after every step of an optimizer.
    Structured criteria remove channels: the module's parameters are then replaced by smaller ones,
    in the module and in attached optimizers. Masks of ``torch.nn.utils.prune`` are taken over, and
    its weights become plain parameters.

    Args:
        model: the module to prune.
        pruning: schedule, scope, criterion and choice of layers. Its recipe is not used.
        example: inputs of one batch: a tensor, a tuple of positional or a mapping of keyword
            arguments.

    Raises:
        InputError: nothing to prune, or less than what is pruned already.

    >>> from wemem.pruning import Schedule
    >>> model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2))
    >>> _ = model[0].weight.data.copy_(torch.tensor([[4., 3.], [2., 1.]]))
    >>> pruner = IterativePruner(model, Pruning(Schedule(0.5, rounds=1)), torch.zeros(2, 2))
    >>> pruner.prune(0); model[0].weight.data
    tensor([[4., 3.],
            [0., 0.]])
    """

    def __init__(self, model: nn.Module, pruning: Pruning, example: Example) -> None:
        layers = pruning.layers
        ignored = tuple(f"model.{name}" for name in layers.ignored_layers)
        classifier = None if layers.classifier is None else f"model.{layers.classifier}"
        self.pruning = replace(pruning, layers=replace(layers, ignored_layers=ignored, classifier=classifier))
        self.model, self._inputs = model, _on_cpu(example)
        self.example = torch.zeros(2)  # the inputs stand in for it
        self._optimizers: list[tuple[Optimizer, Any]] = []
        self._masks: dict[str, Bool[Tensor, "..."]] = {}
        self._channels: dict[str, Bool[Tensor, " C"]] = {}
        self._read_torch_masks()
        given = self._ensemble(self._masks)
        self.pruning.require_prunable(given, self.example)
        self._initial = given if pruning.rewind == "initial" else None

    @property
    def masks(self) -> Mapping[str, Bool[Tensor, "..."]]:
        """Masks by parameter name, True where a weight remains."""
        return self._masks

    @property
    def channels(self) -> Mapping[str, Bool[Tensor, " C"]]:
        """Channels of the dense layers by layer name, True where a channel remains."""
        return self._channels

    @property
    def sparsity(self) -> float:
        """Share of prunable weights, or of channels, that is pruned."""
        masks = [*self._masks.values(), *self._channels.values()]
        return sum(int((~k).sum()) for k in masks) / sum(k.numel() for k in masks) if masks else 0.0

    def prune(self, index: int) -> None:
        """Prune to the sparsity of a round.

        Args:
            index: number of the round, from 0.

        Raises:
            InputError: no such round, or a sparsity below what is pruned already.
        """
        if not 0 <= index < self.pruning.schedule.rounds:
            raise InputError(f"expected a round in 0..{self.pruning.schedule.rounds - 1}, got {index}")
        before, sparsity = (0.0, *self.pruning.schedule.sparsities)[index : index + 2]
        if sparsity == before:
            return
        pruned = self.pruning.prune(self._ensemble(self._masks), sparsity, self.example)
        self._channels = {_plain(name): kept[0] for name, kept in pruned.channels.items()}
        if self._channels:
            self._replace_parameters(pruned.module(0).get_submodule("model"))
            return
        device = next(self.model.parameters()).device
        self._masks = {_plain(name): mask[0].to(device) for name, mask in pruned.masks.items()}
        if self._initial is not None:
            state = {**self._initial.parameters, **self._initial.buffers}
            with torch.no_grad():
                for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
                    tensor.copy_(state[f"model.{name}"][0])
        self.apply()

    @torch.no_grad()
    def apply(self, model: nn.Module | None = None) -> None:
        """Set pruned weights to 0.

        Args:
            model: a copy of the module, such as an exponential moving average; by default the
                module.
        """
        parameters = dict((model or self.model).named_parameters())
        for name, mask in self._masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)

    def attach(self, optimizer: Optimizer) -> None:
        """Apply the masks after every step of an optimizer.

        Raises:
            InputError: the optimizer does not hold the module's parameters.
        """
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        missing = [name for name, p in self.model.named_parameters() if p.requires_grad and id(p) not in known]
        if missing:
            raise InputError(
                f"expected an optimizer of the model's parameters, got one without {missing[0]!r}; build it "
                "from the same module, after freezing and moving it"
            )
        self._optimizers.append((optimizer, optimizer.register_step_post_hook(lambda *_: self.apply())))

    def finalize(self) -> nn.Module:
        """Remove all hooks and return the module; pruned weights are 0."""
        self.apply()
        for _, hook in self._optimizers:
            hook.remove()
        self._optimizers.clear()
        return self.model

    def _read_torch_masks(self) -> None:
        """Take over the masks of ``torch.nn.utils.prune`` and make its weights plain parameters."""
        for prefix, layer in self.model.named_modules():
            for leaf in [name.removesuffix("_mask") for name, _ in layer.named_buffers(recurse=False)]:
                if hasattr(layer, f"{leaf}_orig"):
                    name = f"{prefix}.{leaf}" if prefix else leaf
                    self._masks[name] = getattr(layer, f"{leaf}_mask").bool()
                    torch_prune.remove(layer, leaf)  # type: ignore[no-untyped-call]
        self.apply()

    def write_torch_masks(self) -> None:
        """Hand the masks to ``torch.nn.utils.prune``, as ``weight_orig`` and ``weight_mask``."""
        for name, mask in self._masks.items():
            prefix, _, leaf = name.rpartition(".")
            layer = self.model.get_submodule(prefix)
            torch_prune.custom_from_mask(layer, leaf, mask)  # type: ignore[no-untyped-call]

    def state_dict(self) -> dict[str, Tensor]:
        """Masks and channels, as tensors by name."""
        return {
            **{f"mask/{name}": mask for name, mask in self._masks.items()},
            **{f"channels/{name}": channels for name, channels in self._channels.items()},
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a state of :meth:`state_dict`; the module has its pruned weights already.

        Raises:
            InputError: a mask that fits no parameter of the module.
        """
        parameters = dict(self.model.named_parameters())
        masks = {name.removeprefix("mask/"): mask for name, mask in state.items() if name.startswith("mask/")}
        for name, mask in masks.items():
            if name not in parameters or parameters[name].shape != mask.shape:
                raise InputError(f"expected a mask for a parameter of the model, got {name!r} {tuple(mask.shape)}")
        self._masks = {name: mask.to(parameters[name].device) for name, mask in masks.items()}
        self._channels = {
            name.removeprefix("channels/"): channels for name, channels in state.items() if name.startswith("channels/")
        }
        self.apply()

    def _ensemble(self, masks: Mapping[str, Tensor]) -> Ensemble:
        """The module as an ensemble of one on the CPU, with what it has lost so far."""
        ensemble = Ensemble.from_modules([_Called(self.model, self._inputs)]).to(torch.device("cpu"))
        channels = {f"model.{name}": value[None].cpu() for name, value in self._channels.items()}
        return replace(
            ensemble, masks={f"model.{name}": mask[None].cpu() for name, mask in masks.items()}, channels=channels
        )

    def _replace_parameters(self, smaller: nn.Module) -> None:
        """Give the module the smaller tensors and sizes of a copy of it, and the optimizers the new
        parameters.
        """
        device = next(self.model.parameters()).device
        renewed: dict[int, nn.Parameter] = {}
        for name, layer in self.model.named_modules():
            other = smaller.get_submodule(name)
            for leaf, parameter in layer._parameters.items():
                if parameter is not None:
                    new = nn.Parameter(other.get_parameter(leaf).detach().to(device), parameter.requires_grad)
                    renewed[id(parameter)] = layer._parameters[leaf] = new
            for leaf, buffer in layer._buffers.items():
                if buffer is not None:
                    layer._buffers[leaf] = other.get_buffer(leaf).to(device)
            sizes = {k: v for k, v in vars(other).items() if isinstance(v, int | tuple) and k in vars(layer)}
            vars(layer).update({k: v for k, v in sizes.items() if k != "training"})
        for optimizer, _ in self._optimizers:
            optimizer.state.clear()
            for group in optimizer.param_groups:
                group["params"] = [renewed.get(id(p), p) for p in group["params"]]


def _plain(name: str) -> str:
    """Name in the user's module."""
    return name.removeprefix("model.")
