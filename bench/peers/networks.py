"""The networks of the comparison in PyTorch, and their costs."""

import torch
import torch.nn.functional as F
import torchvision
from torch import nn


class Block(nn.Module):
    """A pre-activation basic block; a shortcut that changes the shape shares
    the first batch norm and ReLU with the residual branch."""

    def __init__(self, channels, out, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.shortcut = None
        if stride != 1 or channels != out:
            self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """Three stages of basic blocks for 32x32 images; `widen` 1 is PreResNet."""

    def __init__(self, blocks, widen, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        channels, layers = 16, []
        for stage in range(3):
            for index in range(blocks):
                out = 16 * widen << stage
                layers.append(Block(channels, out, 2 if stage and not index else 1))
                channels = out
        self.blocks = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = F.relu(self.bn(self.blocks(self.conv1(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def build(name):
    """A network by sdpoint's name, with random weights."""
    torch.manual_seed(0)
    if name == "preresnet20":
        return WideResNet(3, 1, 10)
    if name == "wrn16-4":
        return WideResNet(2, 4, 10)
    return getattr(torchvision.models, name)(weights=None)


def cost(network, side):
    """Parameters, and multiply-accumulates of one image: those of convolutions
    and linear layers, and of these the ones that Winograd's algorithm can save
    three quarters of, in 3x3 convolutions of stride 1 without groups."""
    macs = savable = 0

    def count(layer, _, output):
        nonlocal macs, savable
        work = output[0].numel() * layer.weight[0].numel()
        macs += work
        if isinstance(layer, nn.Conv2d) and (
            (layer.kernel_size, layer.stride, layer.groups) == ((3, 3), (1, 1), 1)
        ):
            savable += work

    layers = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    network.eval()
    with torch.inference_mode():
        network(torch.zeros(1, 3, side, side))
    for hook in hooks:
        hook.remove()
    parameters = sum(p.numel() for p in network.parameters())
    return {"parameters": parameters, "macs": macs, "savable": savable}
