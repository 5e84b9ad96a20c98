"""Models that a study can name. A model is a value, and its ``build`` returns a new ``nn.Module``."""

from collections.abc import Mapping
from typing import Any, Protocol

from torch import nn

from wemem.errors import InputError
from wemem.models.convnet import ConvNet
from wemem.models.custom import CustomModel
from wemem.models.densenet import DenseNet121
from wemem.models.entity_embedding import EntityEmbedding
from wemem.models.image import ImageModel
from wemem.models.mobilenet import MobileNetV2
from wemem.models.recurrent import TextGru, TextLstm
from wemem.models.resnet import ResNet8, ResNet18, ResNet20
from wemem.models.resnet9 import ResNet9
from wemem.models.tabular import FullyConnected
from wemem.models.text_transformer import TextTransformer
from wemem.models.tokens import TokenModel
from wemem.models.vgg import Vgg16
from wemem.models.vit import VisionTransformer
from wemem.resolve import did_you_mean
from wemem.settings import from_table

__all__ = [
    "MODELS", "ConvNet", "CustomModel", "DenseNet121", "EntityEmbedding", "FullyConnected", "MobileNetV2", "Model",
    "ResNet8", "ResNet9", "ResNet18", "ResNet20", "TextGru", "TextLstm", "TextTransformer", "Vgg16",
    "VisionTransformer", "make_model",
]  # fmt: skip


class Model(Protocol):
    """A recipe for a network."""

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialized classifier: ``(B, *input_shape) -> (B, classes)`` logits."""
        ...


BuiltIn = FullyConnected | ImageModel | VisionTransformer | TokenModel | EntityEmbedding
#: Every built-in model, by the kind under which a study names it.
MODELS: Mapping[str, type[BuiltIn]] = {
    "fc": FullyConnected,
    "convnet": ConvNet,
    "resnet8": ResNet8,
    "resnet9": ResNet9,
    "resnet20": ResNet20,
    "resnet18": ResNet18,
    "vgg16_bn": Vgg16,
    "densenet121": DenseNet121,
    "mobilenet_v2": MobileNetV2,
    "vit": VisionTransformer,
    "text_transformer": TextTransformer,
    "lstm": TextLstm,
    "gru": TextGru,
    "entity_embedding": EntityEmbedding,
}


def make_model(kind: str, settings: Mapping[str, Any]) -> Model:
    """Build the value of a model from its kind and settings, as a study gives them.

    Args:
        kind: a key of :data:`MODELS`, or ``package.module:factory``.
        settings: the fields of the model. For a factory: its arguments, and ``output``
            (:mod:`wemem.models.outputs`).

    Raises:
        InputError: the kind or a setting is unknown.

    >>> make_model("resnet8", {"width": 0.5})
    ResNet8(width=0.5)
    """
    if ":" in kind:
        arguments = dict(settings)
        return CustomModel(kind, arguments, _output(arguments.pop("output", None)))
    if kind not in MODELS:
        hint = did_you_mean(kind, MODELS)
        raise InputError(f"expected model kind {', '.join(MODELS)} or package.module:factory, got {kind!r}{hint}")
    return from_table(MODELS[kind], settings, f"model {kind!r}")


def _output(value: object) -> str | int | None:
    if value is None or (isinstance(value, str | int) and not isinstance(value, bool)):
        return value
    raise InputError(f"expected [model] output to be the name or position of the logits, got {value!r}")
