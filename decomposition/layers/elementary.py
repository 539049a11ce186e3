"""Functions whose derivatives PyTorch vectorises wrongly, in operations for which it does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

PRELU = (torch.prelu, torch.Tensor.prelu, nn.functional.prelu)


class ElementaryOperations(TorchFunctionMode):
    """Within it ``prelu`` (and so torch.nn.PReLU) is a product and a choice.

    PyTorch 2.13's own derivative, vectorised over examples and over columns within each, fails, or
    is wrong where there are as many columns as examples.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Change that one function; every other runs as it is."""
        return (_prelu if func in PRELU else func)(*args, **(kwargs or {}))


def _prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where x > 0, w x elsewhere, with w of the channel."""
    by_channel = weight.view(-1, *(1,) * max(input.ndim - 2, 0))
    return torch.where(input > 0, input, by_channel * input)
