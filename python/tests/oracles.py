"""The small networks of `fixtures/oracles`, as PyTorch modules under the same names."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


class PreBlock(nn.Module):
    """A pre-activation block; with `projected_norm`, its shortcut ends in a batch norm."""

    def __init__(self, channels, widths, kernels, stride, projected_norm):
        super().__init__()
        sizes = [channels, *widths]
        strides = [stride if k == 3 and i == kernels.index(3) else 1 for i, k in enumerate(kernels)]
        for i, (kernel, step) in enumerate(zip(kernels, strides, strict=True), 1):
            conv = nn.Conv2d(sizes[i - 1], sizes[i], kernel, step, kernel // 2, bias=False)
            setattr(self, f"bn{i}", nn.BatchNorm2d(sizes[i - 1]))
            setattr(self, f"conv{i}", conv)
        self.count = len(kernels)
        self.downsample = self.shortcut = None
        if channels != widths[-1] or stride != 1:
            conv = nn.Conv2d(channels, widths[-1], 1, stride, bias=False)
            if projected_norm:
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(widths[-1]))
            else:
                self.shortcut = conv

    def forward(self, x):
        active = torch.relu(self.bn1(x))
        y = self.conv1(active)
        for i in range(2, self.count + 1):
            y = getattr(self, f"conv{i}")(torch.relu(getattr(self, f"bn{i}")(y)))
        projection = self.shortcut or self.downsample
        return y + (x if projection is None else projection(active))


class PreResNetMini(nn.Module):
    """Bottlenecks [1, 1, 1, 1], stem width 16, as the method's authors build them."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 16
        for stage in range(4):
            width = 16 << stage
            block = PreBlock(
                channels, [width, width, 4 * width], [1, 3, 1], 2 if stage else 1, True
            )
            setattr(self, f"layer{stage + 1}", nn.Sequential(block))
            channels = 4 * width
        self.bn2 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, 10)

    def forward(self, x):
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.relu(self.bn2(x)).mean((2, 3)))


class PreResNet8(nn.Module):
    """A pre-activation ResNet for small images, a block a stage."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        shapes = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
        self.blocks = nn.Sequential(
            *(PreBlock(c, [out, out], [3, 3], stride, False) for c, out, stride in shapes)
        )
        self.bn = nn.BatchNorm2d(64)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = torch.relu(self.bn(self.blocks(self.conv1(x))))
        return self.fc(torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1))


def post_activation(block, groups=1, base_width=64):
    """torchvision's ResNet of one block a stage with a stem of 16 channels."""

    class Mini(ResNet):
        def __init__(self):
            super().__init__(block, [1, 1, 1, 1], 10, groups=groups, width_per_group=base_width)

    net = Mini()
    net.inplanes = 16
    net.conv1 = nn.Conv2d(3, 16, 7, 2, 3, bias=False)
    net.bn1 = nn.BatchNorm2d(16)
    for stage in range(4):
        layer = net._make_layer(block, 16 << stage, 1, stride=2 if stage else 1)
        setattr(net, f"layer{stage + 1}", layer)
    net.fc = nn.Linear(128 * block.expansion, 10)
    return net


NETWORKS = {
    "preresnet8": PreResNet8,
    "preresnet-mini": PreResNetMini,
    "resnet-mini": lambda: post_activation(Bottleneck),
    "resnet-mini-basic": lambda: post_activation(BasicBlock),
    "resnext-mini": lambda: post_activation(Bottleneck, 4, 16),
}
