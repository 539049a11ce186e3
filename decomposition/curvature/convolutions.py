"""Convolutions as products on patches, where that is faster.

PyTorch's float64 convolutions on the CPU read the whole weight once per example, and their second
derivatives do so several times. With many weights and few positions one product of all patches
with the weight is far faster: a 3×3 convolution of 128 channels at 2×2 positions, 32 examples, one
Hessian-vector product: 0.03 s against 1.27 s on one core. With few weights and many positions the
patches cost more than they save.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from decomposition.inputs import Inputs, apply

RATIO = 8
"""Weights per output number from which patches are used."""


class PatchConvolution(nn.Conv2d):
    """The same function as torch.nn.Conv2d with zero padding and one group."""

    def forward(self, input: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d_out h' w'"]:
        """Patches (n · positions, d_in) times the weight's transpose."""
        sizes = (self.kernel_size, self.dilation, self.padding, self.stride)
        patches = nn.functional.unfold(input, *sizes)  # pyright: ignore[reportArgumentType]
        n, d_in, positions = patches.shape
        rows = patches.transpose(1, 2).reshape(n * positions, d_in)
        z = rows @ self.weight.flatten(1).T
        if self.bias is not None:
            z = z + self.bias
        reach = self.dilation[0] * (self.kernel_size[0] - 1) + 1
        height = (input.shape[2] + 2 * int(self.padding[0]) - reach) // self.stride[0] + 1
        shape = (n, height, positions // height, self.out_channels)
        return z.view(shape).permute(0, 3, 1, 2)


def with_patches(model: nn.Module, x: Inputs) -> nn.Module:
    """Let convolutions with many weights for their outputs work on patches, in place.

    Args:
        model: a copy of one's own.
        x: a few examples, to see how many positions each convolution has.
    """
    outputs: dict[nn.Module, int] = {}

    def count(module: nn.Module, _: object, result: Tensor) -> None:
        outputs[module] = result[0].numel()

    candidates = [m for m in model.modules() if type(m) is nn.Conv2d and _fits(m)]
    hooks = [module.register_forward_hook(count) for module in candidates]
    try:
        apply(model, x)
    finally:
        for hook in hooks:
            hook.remove()
    for module in candidates:
        if module in outputs and module.weight.numel() >= RATIO * outputs[module]:
            module.__class__ = PatchConvolution
    return model


def _fits(module: nn.Conv2d) -> bool:
    return (
        module.groups == 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and module.weight.device.type == "cpu"
    )
