"""``K`` models of one architecture as one value: stacked parameters, buffers and masks with a leading axis ``K``."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Real
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.models import Model
from wemem.training.device import choose_device
from wemem.training.dropout import SeededDropout, replace_dropout
from wemem.training.memory import halving
from wemem.training.resize import resized

_KINDS = ("parameters", "buffers", "masks", "channels")


@dataclass(frozen=True, eq=False)
class Ensemble:
    """``K`` models of one architecture.

    Args:
        template: the module that computes a model; its own weights are not used.
        parameters: trainable tensors, each ``(K, ...)``, by their names in the template.
        buffers: other state, each ``(K, ...)``; frozen parameters count as buffers.
        masks: bool tensors ``(K, ...)`` for the pruned parameters and frozen weights, True where a weight is kept.
        channels: bool tensors ``(K, C)`` for the layers that lost some of the C channels they made in the dense model,
            True where a channel is kept; their tensors are smaller then.
    """

    template: nn.Module
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    masks: Mapping[str, Bool[Tensor, "K ..."]] = field(default_factory=dict)
    channels: Mapping[str, Bool[Tensor, "K _"]] = field(default_factory=dict)

    @classmethod
    def initialize(cls, model: Model, input_shape: tuple[int, ...], classes: int, seeds: Sequence[int]) -> "Ensemble":
        """Fresh models, the ``k``-th drawn with ``seeds[k]``; PyTorch's global generator is left as it was."""
        modules = []
        for seed in seeds:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                modules.append(model.build(input_shape, classes))
        return cls.from_modules(modules)

    @classmethod
    def from_modules(cls, modules: Sequence[nn.Module]) -> "Ensemble":
        """Stack existing models of one architecture.

        Raises:
            InputError: the models differ in the name or shape of a parameter or buffer, or have none to train.
        """
        states = [{**dict(m.named_parameters()), **dict(m.named_buffers())} for m in modules]
        for k, state in enumerate(states):
            differ = [
                name for name in {**states[0], **state}
                if name not in state or name not in states[0] or state[name].shape != states[0][name].shape
            ]  # fmt: skip
            if differ:
                raise InputError(f"expected all models to be built alike, got another {differ[0]!r} in model {k}")
        template = replace_dropout(copy.deepcopy(modules[0]))
        trainable = {name for name, p in modules[0].named_parameters() if p.requires_grad}
        if not trainable:
            raise InputError("expected a model with trainable parameters, got none; unfreeze some")
        stacked = {name: torch.stack([s[name].detach() for s in states]).contiguous() for name in states[0]}
        keys = {
            f"{name}.key": torch.zeros(len(modules), dtype=torch.int32)
            for name, module in template.named_modules()
            if isinstance(module, SeededDropout)
        }
        return cls(
            template,
            {name: t for name, t in stacked.items() if name in trainable},
            {**{name: t for name, t in stacked.items() if name not in trainable}, **keys},
        )

    @classmethod
    def concatenate(cls, parts: "Sequence[Ensemble]") -> "Ensemble":
        """The models of several ensembles of one architecture, in order; a weight without a mask is kept."""

        def cat(kind: str) -> dict[str, Tensor]:
            return {name: torch.cat([getattr(p, kind)[name] for p in parts]) for name in getattr(parts[0], kind)}

        state = [{**part.parameters, **part.buffers} for part in parts]
        masked = dict.fromkeys(name for part in parts for name in part.masks)
        masks = {
            name: torch.cat([
                part.masks[name] if name in part.masks else torch.ones_like(own[name], dtype=torch.bool)
                for part, own in zip(parts, state, strict=True)
            ])
            for name in masked
        }  # fmt: skip
        others = {kind: cat(kind) for kind in _KINDS if kind != "masks"}
        return Ensemble(parts[0].template, **others, masks=masks)

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def select(self, models: Sequence[int]) -> "Ensemble":
        """Copies of some of the models, by their places."""
        rows = torch.as_tensor(list(models))
        return replace(
            self,
            parameters={n: t[rows] for n, t in self.parameters.items()},
            buffers={n: t[rows] for n, t in self.buffers.items()},
            masks={n: t[rows] for n, t in self.masks.items()},
            channels={n: t[rows] for n, t in self.channels.items()},
        )

    def state(self, model: int) -> dict[str, Tensor]:
        """One model's state dict, loadable by the plain model: ``model.load_state_dict(...)``."""
        return dict(self.module(model).state_dict())

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the template as flat arrays, for storing."""
        return {f"{kind}/{name}": t.cpu().numpy() for kind in _KINDS for name, t in getattr(self, kind).items()}

    def with_arrays(self, arrays: Mapping[str, np.ndarray]) -> "Ensemble":
        """The ensemble of this architecture, or of it without some channels, that :meth:`arrays` described."""
        parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in _KINDS}
        for key, array in arrays.items():
            kind, _, name = key.partition("/")
            parts[kind][name] = torch.from_numpy(np.array(array))
        shapes = {name: tuple(t.shape[1:]) for name, t in {**parts["parameters"], **parts["buffers"]}.items()}
        return Ensemble(resized(self.template, shapes), **parts)

    def to(self, device: torch.device) -> "Ensemble":
        """The same on another device, with a template of its own, for a call that computes there."""
        moved = {kind: {name: t.to(device) for name, t in getattr(self, kind).items()} for kind in _KINDS}
        return Ensemble(copy.deepcopy(self.template).to(device), **moved)

    def logits(
        self, features: Real[np.ndarray, "N ..."], batch_size: int = 1024, device: torch.device | str = "cpu"
    ) -> Float32[np.ndarray, "K N C"]:
        """Outputs of every model on the same records, in evaluation mode and float32, one model after another.

        Args:
            features: N records.
            batch_size: records at a time; halved where memory runs out.
            device: the device to compute them on, as :func:`~wemem.training.device.choose_device` takes it.

        Raises:
            InputError: a device that is not there, or no memory for one record.
        """
        where = choose_device(device)

        def ask(size: int) -> Float32[np.ndarray, "K N C"]:
            return np.stack([self._answers(k, features, size, where) for k in range(len(self))])

        return halving(ask, batch_size, "the answer to one record")[0]

    def _answers(
        self, model: int, features: Real[np.ndarray, "N ..."], size: int, device: torch.device
    ) -> Float32[np.ndarray, "N C"]:
        module, starts = self.module(model).to(device), range(0, len(features), size)
        with torch.inference_mode():
            parts = [module(torch.from_numpy(features[s : s + size]).to(device)).cpu().numpy() for s in starts]
        return np.concatenate(parts)

    def module(self, model: int) -> nn.Module:
        """One model as a plain module in evaluation mode, with copied weights."""
        module = copy.deepcopy(self.template)
        state = {name: t[model] for name, t in {**self.parameters, **self.buffers}.items()}
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            tensor.data = state[name].clone()
        return module.eval()
