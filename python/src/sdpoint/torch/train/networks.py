"""Networks by name: torchvision's, timm's, and sdpoint's own for small images."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from ..errors import WrapError


class PreActivationBlock(nn.Module):
    """A basic block of He et al., arXiv 1603.05027.

    Where the shape changes, the shortcut is a 1x1 convolution that shares the
    block's first batch norm and ReLU with the residual branch.
    """

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut: nn.Module | None = None
        if stride != 1 or channels != out:
            self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """`[N, channels, H, W]` to `[N, out, H / stride, W / stride]`."""
        active = torch.relu(self.bn1(x))
        y = self.conv2(torch.relu(self.bn2(self.conv1(active))))
        return y + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """sdpoint's `preresnetD` and `wrnD-K`, with the same names of parameters.

    Three stages of `blocks` blocks; the first has `width * widen` channels.
    """

    def __init__(self, blocks: int, width: int, widen: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        channels, layers = width, []
        for block in range(3 * blocks):
            out = width * widen << (block // blocks)
            stride = 2 if block >= blocks and block % blocks == 0 else 1
            layers.append(PreActivationBlock(channels, out, stride))
            channels = out
        self.blocks = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of `[N, 3, H, W]` images."""
        x = torch.relu(self.bn(self.blocks(self.conv1(x))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def build(name: str, classes: int, pretrained: bool = False) -> nn.Module:
    """A network by name for a number of classes; a prefix `timm:` takes timm's.

    With `pretrained`, the weights that torchvision or timm have; the classifier
    starts from random weights if the number of classes differs.
    """
    small = _small(name)
    if small is not None:
        if pretrained:
            raise WrapError(f"there are no pretrained weights of {name}")
        return WideResNet(*small, classes)
    if name.startswith("timm:"):
        import timm

        return timm.create_model(name[5:], pretrained=pretrained, num_classes=classes)
    from torchvision import models

    if name not in models.list_models(models):
        raise WrapError(
            f"there is no network '{name}': torchvision's names, timm:NAME, preresnetD with "
            "D = 6n + 2 and wrnD-K with D = 6n + 4 are known"
        )
    if not pretrained:
        return models.get_model(name, weights=None, num_classes=classes)
    net = models.get_model(name, weights="DEFAULT")
    return _with_classes(net, classes)


def small_images(name: str) -> bool:
    """Whether a network is for images of some 32 pixels."""
    return _small(name) is not None


def _small(name: str) -> tuple[int, int, int] | None:
    """(blocks, width, widen) of sdpoint's networks for small images."""
    if match := re.fullmatch(r"preresnet(\d+)(?:-w(\d+))?", name):
        depth, width, widen, rest = int(match[1]), int(match[2] or 16), 1, 2
    elif match := re.fullmatch(r"wrn(\d+)-(\d+)", name):
        depth, width, widen, rest = int(match[1]), 16, int(match[2]), 4
    else:
        return None
    if depth <= rest or (depth - rest) % 6:
        raise WrapError(f"'{name}' cannot be: its depth is 6n + {rest}")
    return (depth - rest) // 6, width, widen


def _with_classes(net: nn.Module, classes: int) -> nn.Module:
    """Gives the last linear layer another number of outputs."""
    name, last = [(n, m) for n, m in net.named_modules() if isinstance(m, nn.Linear)][-1]
    if last.out_features != classes:
        parent, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(parent), leaf, nn.Linear(last.in_features, classes))
    return net
