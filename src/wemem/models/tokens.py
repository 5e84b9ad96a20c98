"""Models of token ids: the number of tokens, and the mask of the padding."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Real
from torch import Tensor, nn

from wemem.errors import InputError

#: The token id of padding, which no model reads.
PADDING = 0


@dataclass(frozen=True)
class TokenModel(ABC):
    """A classifier of sequences of token ids ``0 .. vocabulary - 1``, of which 0 is padding.

    Args:
        vocabulary: the number of different token ids.
        width: the width of the embedding of a token.
    """

    vocabulary: int = 8192
    width: int = 64

    def __post_init__(self) -> None:
        for name, least in (("vocabulary", 2), ("width", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def require_features(self, features: Real[np.ndarray, "N ..."]) -> None:
        """Refuse features that are no token ids of this model.

        Raises:
            InputError: a number that is not whole, negative, or not below :attr:`vocabulary`.
        """
        least, most = features.min(), features.max()
        if not (features == np.floor(features)).all() or least < 0:
            raise InputError(
                f"{type(self).__name__} expected token ids, whole numbers from 0 (padding), got {least}..{most}; "
                "bring ids, or use another model"
            )
        if most >= self.vocabulary:
            raise InputError(
                f"expected token ids below model.vocabulary = {self.vocabulary:,}, got {int(most):,}; set "
                f"model.vocabulary = {int(most) + 1}"
            )

    def build(self, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A freshly initialized network, ``(B, L) -> (B, classes)``; PyTorch's global generator
        draws the weights.

        Raises:
            InputError: the records are no sequences of tokens.
        """
        if len(input_shape) != 1:
            raise InputError(
                f"{type(self).__name__} expected sequences of token ids (length,), got records of shape {input_shape}; "
                "bring one row of ids for each record"
            )
        return self.network(input_shape[0], classes)

    @abstractmethod
    def network(self, length: int, classes: int) -> nn.Module:
        """Build the layers for sequences of a length; the last layer is the classifier."""


def real_tokens(ids: Real[Tensor, "B L"]) -> Bool[Tensor, "B L"]:
    """A mask that is True for tokens and False for padding.

    >>> import torch
    >>> real_tokens(torch.tensor([[7, 3, 0]])).tolist()
    [[True, True, False]]
    """
    return ids != PADDING
