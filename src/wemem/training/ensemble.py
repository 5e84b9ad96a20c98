"""``K`` models of one architecture as one value: stacked parameters, buffers and masks with a
leading axis ``K``.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Real
from torch import Tensor, nn

from wemem.errors import InputError
from wemem.models import Model
from wemem.training.device import choose_device, cuda_settings, gpu_arithmetic
from wemem.training.dropout import SeededDropout, replace_dropout
from wemem.training.memory import halving
from wemem.training.resize import resized

_KINDS = ("parameters", "buffers", "masks", "channels")


@dataclass(frozen=True, eq=False)
class Ensemble:
    """An ensemble of ``K`` models of one architecture.

    Args:
        template: the module that computes a model; its own weights are not used.
        parameters: the trainable tensors, each ``(K, ...)``, by their names in the template.
        buffers: the other state, each tensor ``(K, ...)``; frozen parameters count as buffers.
        masks: the masks ``(K, ...)`` of pruned parameters and frozen weights, True where a weight
            is kept.
        channels: the masks ``(K, C)`` of layers that have lost some of the C channels of the dense
            model, True where a channel is kept; the tensors of these layers are smaller.
    """

    template: nn.Module
    parameters: Mapping[str, Tensor]
    buffers: Mapping[str, Tensor]
    masks: Mapping[str, Bool[Tensor, "K ..."]] = field(default_factory=dict)
    channels: Mapping[str, Bool[Tensor, "K _"]] = field(default_factory=dict)

    @classmethod
    def initialize(cls, model: Model, input_shape: tuple[int, ...], classes: int, seeds: Sequence[int]) -> "Ensemble":
        """Build new models, the ``k``-th from ``seeds[k]``; PyTorch's global generator does not
        change.
        """
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
            InputError: the models differ in the name or shape of a parameter or buffer, or have no
                trainable parameter.
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
        """Join the models of several ensembles of one architecture, in order; a weight without a
        mask is kept.
        """

        def cat(kind: str) -> dict[str, Tensor]:
            return {name: torch.cat([getattr(p, kind)[name] for p in parts]) for name in getattr(parts[0], kind)}

        state = [{**part.parameters, **part.buffers} for part in parts]
        masked = dict.fromkeys(name for part in parts for name in part.masks)
        masks = {
            name: torch.cat([
                part.masks[name] if name in part.masks else torch.ones_like(of_part[name], dtype=torch.bool)
                for part, of_part in zip(parts, state, strict=True)
            ])
            for name in masked
        }  # fmt: skip
        others = {kind: cat(kind) for kind in _KINDS if kind != "masks"}
        return Ensemble(parts[0].template, **others, masks=masks)

    def __len__(self) -> int:
        return len(next(iter(self.parameters.values())))

    def select(self, models: Sequence[int]) -> "Ensemble":
        """Copy some of the models, by their places."""
        rows = torch.as_tensor(list(models))
        return replace(
            self,
            parameters={n: t[rows] for n, t in self.parameters.items()},
            buffers={n: t[rows] for n, t in self.buffers.items()},
            masks={n: t[rows] for n, t in self.masks.items()},
            channels={n: t[rows] for n, t in self.channels.items()},
        )

    def state(self, model: int) -> dict[str, Tensor]:
        """The state dict of one model, which the plain model loads: ``model.load_state_dict(...)``."""
        return dict(self.module(model).state_dict())

    def arrays(self) -> dict[str, np.ndarray]:
        """Convert everything but the template to arrays, for storage."""
        return {f"{kind}/{name}": t.cpu().numpy() for kind in _KINDS for name, t in getattr(self, kind).items()}

    def with_arrays(self, arrays: Mapping[str, np.ndarray]) -> "Ensemble":
        """Build an ensemble of this architecture, or of it without some channels, from the result
        of :meth:`arrays`.
        """
        parts: dict[str, dict[str, Tensor]] = {kind: {} for kind in _KINDS}
        for key, array in arrays.items():
            kind, _, name = key.partition("/")
            parts[kind][name] = torch.from_numpy(np.array(array))
        shapes = {name: tuple(t.shape[1:]) for name, t in {**parts["parameters"], **parts["buffers"]}.items()}
        return Ensemble(resized(self.template, shapes), **parts)

    def to(self, device: torch.device) -> "Ensemble":
        """Copy the ensemble to another device, with its own template."""
        moved = {kind: {name: t.to(device) for name, t in getattr(self, kind).items()} for kind in _KINDS}
        return Ensemble(copy.deepcopy(self.template).to(device), **moved)

    def logits(
        self, features: Real[np.ndarray, "N ..."], batch_size: int = 1024, device: torch.device | str = "cpu"
    ) -> Float32[np.ndarray, "K N C"]:
        """Compute the logits of every model on the same records, in evaluation mode and float32,
        one after another.

        Args:
            features: the N records.
            batch_size: the number of records at a time, which is halved where memory runs out.
            device: the device that computes the logits, as in
                :func:`~wemem.training.device.choose_device`.

        Raises:
            InputError: the device does not exist, or there is not enough memory for one record.
        """
        where = choose_device(device)

        def query(size: int) -> Float32[np.ndarray, "K N C"]:
            x, module = torch.from_numpy(features).to(where), copy.deepcopy(self.template).eval()
            return np.stack([self._logits_of(k, module, x, size) for k in range(len(self))])

        with gpu_arithmetic(where):
            return halving(query, batch_size, "the answer to one record")[0]

    def _logits_of(
        self, model: int, module: nn.Module, x: Real[Tensor, "N ..."], size: int
    ) -> Float32[np.ndarray, "N C"]:  # fmt: skip
        """Compute the logits of one model on the device of the records, from which they are copied once.

        Args:
            model: the number of the model.
            module: a copy of the template, which becomes this model.
            x: the records.
            size: the number of records at a time.
        """
        module = self._become(module, model).to(x.device)
        if x.device.type == "cuda" and cuda_settings().channels_last:
            for parameter in module.parameters():
                if parameter.ndim == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        with torch.inference_mode():
            logits: Float32[np.ndarray, "N C"] = (
                torch.cat([module(part) for part in torch.split(x, size)]).cpu().numpy()
            )
        return logits

    def module(self, model: int) -> nn.Module:
        """Copy one model to a plain module in evaluation mode."""
        return self._become(copy.deepcopy(self.template).eval(), model)

    def _become(self, module: nn.Module, model: int) -> nn.Module:
        """Give a copy of the template the parameters and buffers of one model."""
        state = {name: t[model] for name, t in {**self.parameters, **self.buffers}.items()}
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            tensor.data = state[name].clone()
        return module
