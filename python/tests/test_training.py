"""A user's own loop: precision, layouts, averaged weights, adapting a finished network."""

import copy

import pytest
import torch
import torch.nn.functional as F
from conftest import Small, randomised
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

import sdpoint.torch as sp


def learnable(images=256, batch=32):
    """Images whose class is their brightest quarter."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(images, 3, 16, 16, generator=generator)
    y = torch.randint(4, (images,), generator=generator)
    for image, label in zip(x, y.tolist(), strict=True):
        row, column = 8 * (label // 2), 8 * (label % 2)
        image[:, row : row + 8, column : column + 8] += 1
    return DataLoader(TensorDataset(x, y), batch, shuffle=True, generator=generator)


def steps(net, loader, epochs=1, optimizer=None, **autocast):
    optimizer = optimizer or torch.optim.SGD(net.parameters(), 0.05, 0.9)
    losses = []
    for _ in range(epochs):
        for x, y in loader:
            with torch.autocast("cpu", **autocast) if autocast else torch.enable_grad():
                loss = F.cross_entropy(net(x).float(), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return losses


def test_every_instance_learns():
    net = sp.wrap(Small(classes=4)).train()
    losses = steps(net, learnable(), epochs=6)
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])
    sp.calibrate(net, learnable(), images=256)
    rows = net.curve(learnable())
    assert all(row.top1 > 0.35 for row in rows), rows


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_every_instance(dtype):
    net = sp.wrap(Small(classes=4)).train()
    net.train()
    x, y = next(iter(learnable()))
    scaler = torch.amp.GradScaler("cpu", enabled=dtype is torch.float16)
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    net.follow(optimizer)
    for instance in net.instances:
        reference = F.cross_entropy(copy.deepcopy(net).instance(instance)(x), y).item()
        with torch.autocast("cpu", dtype):
            logits = net.instance(instance)(x)
            assert logits.dtype == dtype
        loss = F.cross_entropy(logits.float(), y)
        assert loss.item() == pytest.approx(reference, rel=0.05)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    assert all(p.dtype == torch.float32 for p in net.parameters())
    # Statistics stay in single precision.
    assert all(b.dtype != dtype for b in net.buffers())


def test_channels_last_goes_through_the_points():
    net = sp.wrap(randomised(Small()).to(memory_format=torch.channels_last)).train()
    x = torch.randn(4, 3, 16, 16)
    formats = []
    net.norm.register_forward_pre_hook(
        lambda m, a: formats.append(a[0].is_contiguous(memory_format=torch.channels_last))
    )
    for instance in net.instances:
        net.instance(instance)
        left, right = net(x), net(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(left, right, rtol=1e-3, atol=1e-4)
    assert all(formats[1::2])


def test_averaged_weights_are_calibrated_for_themselves(tmp_path):
    net = sp.wrap(Small(classes=4)).train()
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimizer = torch.optim.SGD(net.parameters(), 0.05)
    for x, y in learnable():
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        averaged.update_parameters(net)
    sp.calibrate(averaged, learnable(), images=64)
    rows = averaged.module.curve(learnable())
    assert len(rows) == 7 and not net.statistics.own
    good = dict(size=16, mean=(0.5,) * 3, std=(0.2,) * 3)
    sp.save(averaged, tmp_path / "averaged.safetensors", preprocessing=good, curve=rows)


def test_norms_become_synchronised_before_or_after_wrapping():
    before = sp.wrap(nn.SyncBatchNorm.convert_sync_batchnorm(Small()))
    after = nn.SyncBatchNorm.convert_sync_batchnorm(sp.wrap(Small()))
    assert isinstance(after, sp.Adjustable)
    x = torch.randn(4, 3, 16, 16)
    for net in (before, after):
        norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        assert norms and all(type(norm) is nn.SyncBatchNorm for norm in norms)
        assert net._norms.module("norm") is net.norm
        # They take statistics on GPUs alone, but their lowering and evaluation are plain.
        assert net.lowered().statistics.keys() == set(net._norms.paths)
        for path in net._norms.paths:
            net.statistics.own.setdefault("1@0.5", {})[path] = (
                net._norms.module(path).running_mean,
                net._norms.module(path).running_var,
            )
        assert net.eval().instance("1@0.5")(x).shape == (4, 10)
    # What runs is what was put in, not what was there when the network was traced.
    seen = []
    after.norm.register_forward_hook(lambda *a: seen.append(1))
    after(x)
    assert seen


def test_a_finished_network_is_adapted():
    plain = Small(classes=4)
    optimizer = torch.optim.SGD(plain.parameters(), 0.05, 0.9)
    steps(plain, learnable(), epochs=4, optimizer=optimizer)
    said = []
    adapted = sp.adapt(
        plain, learnable(), 2, test=learnable(), ratios=(0.5,), images=256, report=said.append
    )
    assert adapted.net.instances == ["full", "0@0.5", "1@0.5", "2@0.5"]
    before, after = (sum(r.loss for r in rows) for rows in (adapted.before, adapted.after))
    assert after < before
    assert said[0].startswith("before: full") and said[-1].startswith("after: full")
    assert adapted.net.draws.step == 16
    with pytest.raises(TypeError, match="a DataLoader"):
        sp.adapt(plain, iter(learnable()), 1)


def test_memory_of_a_step_is_that_of_the_plain_network():
    """No instance keeps tensors that full does not."""
    net = sp.wrap(Small()).train()
    x = torch.randn(4, 3, 16, 16)
    kept = {}

    for instance in net.instances:
        sizes = []

        def pack(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            net.instance(instance)(x)
        kept[instance] = sum(sizes)
    assert all(kept[i] <= kept["full"] * 1.01 for i in net.instances), kept
