"""Products of two computed tensors in the code of a model, such as those of attention.

Functions that a layer of PyTorch calls are not seen, because the layers are counted by themselves.
``einsum`` and products that are written as sums of elements are not counted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

#: Functions that multiply two matrices, or two stacks of them.
PRODUCTS = (
    torch.matmul, torch.bmm, torch.mm, Tensor.matmul, Tensor.__matmul__, Tensor.__rmatmul__, Tensor.bmm, Tensor.mm,
)  # fmt: skip


class CountedProducts(TorchFunctionMode):
    """A context in which the multiplications of products are counted.

    >>> with CountedProducts() as products:
    ...     _ = torch.ones(2, 3) @ torch.ones(3, 4)
    >>> products.total
    24
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # fmt: skip
        kwargs = kwargs or {}
        output = func(*args, **kwargs)
        if func in PRODUCTS:
            self.total += output.numel() * args[0].shape[-1]
        elif func is scaled_dot_product_attention:
            query, key = args[0] if args else kwargs["query"], args[1] if len(args) > 1 else kwargs["key"]
            self.total += (query.numel() + output.numel()) * key.shape[-2]
        return output
