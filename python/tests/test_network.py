"""What a wrapped network is and does."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from conftest import Block, Small, randomised
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, TensorDataset

import sdpoint.torch as sp


def statistics(net):
    return {k: v.clone() for k, v in net.named_buffers()}


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def loader(images=64, batch=8, side=16, shuffle=True):
    data = TensorDataset(torch.randn(images, 3, side, side), torch.randint(10, (images,)))
    return DataLoader(data, batch, shuffle=shuffle)


# What it is


def test_points_are_the_sums_of_blocks_and_the_stems_pool():
    net = sp.wrap(Small(), ratios=(0.75, 0.5, 0.5))
    assert [(p.name, p.module) for p in net.points] == [
        ("0", "blocks.0"),
        ("1", "blocks.1"),
        ("2", "blocks.2"),
    ]
    assert net.instances == ["full", "0@0.5", "0@0.75", "1@0.5", "1@0.75", "2@0.5", "2@0.75"]
    assert net.instances[1] == str(sp.Instance.parse("0@0.50"))
    assert str(sp.Instance("1", 1e-5)) == "1@0.00001"


def test_downsampling_is_before_the_closing_relu_with_halves_to_even():
    module = Small().eval()
    net = sp.wrap(module, ratios=(0.5,)).train()
    x = torch.randn(4, 3, 7, 5)
    sizes = []
    module.train()

    def reference(images):
        x = module.stem(images)
        for i, block in enumerate(module.blocks):
            shortcut = x if block.skip is None else block.skip(x)
            x = block.body(x) + shortcut
            if i == 0:
                x = F.adaptive_avg_pool2d(x, (4, 2))  # 3.5 to 4, 2.5 to 2
                sizes.append(x.shape)
            x = torch.relu(x)
        return module.head(module.norm(x).mean((2, 3)))

    torch.testing.assert_close(net.instance("0@0.5")(x), reference(x))
    assert sizes


def test_the_stems_pool_becomes_adaptive_at_the_size_it_would_have_given():
    class Stem(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, padding=1)
            self.pool = nn.MaxPool2d(3, 2, 1)
            self.block = Block(8, 8)
            self.head = nn.Linear(8, 10)

        def forward(self, x):
            x = self.block(self.pool(torch.relu(self.conv(x))))
            return self.head(x.mean((2, 3)))

    module = Stem()
    net = sp.wrap(module, ratios=(0.5,)).train()
    assert [p.name for p in net.points] == ["stem", "0"] and net.points[0].module == "pool"
    x = torch.randn(2, 3, 13, 18)
    y = torch.relu(module.conv(x))
    y = F.adaptive_max_pool2d(y, (4, 4))  # the pool gives 7 x 9: 3.5 to 4, 4.5 to 4
    expected = module.head(module.train().block(y).mean((2, 3)))
    torch.testing.assert_close(net.instance("stem@0.5")(x), expected)


def test_it_has_the_plain_networks_state_and_leaves_the_module_as_it_was():
    module = randomised(Small()).eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    kinds = {name: type(m) for name, m in module.named_modules()}
    net = sp.wrap(module)
    assert list(net.state_dict()) == list(module.state_dict())
    assert all(p is q for p, q in zip(net.parameters(), module.parameters(), strict=True))
    net.train()
    assert not any(m.training for m in module.modules())
    sp.calibrate(net, loader())
    assert list(net.state_dict()) == list(before)
    assert {name: type(m) for name, m in module.named_modules()} == kinds
    Small().load_state_dict(net.state_dict())
    net.eval()
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(x), module(x))
    assert net.head is not None and net.state_dict()["head.bias"].shape == (10,)


def test_names_of_modules_take_the_place_of_the_search():
    net = sp.wrap(Small(), points=["blocks.1", "stem"])
    assert [(p.name, p.module) for p in net.points] == [("0", "stem"), ("1", "blocks.1")]
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 10),
    )
    with pytest.raises(sp.WrapError, match="points="):
        sp.wrap(plain)
    assert len(sp.wrap(plain, points=["0", "1"]).instances) == 5
    with pytest.raises(sp.WrapError, match=r"no module 'blocks\.7'; did you mean blocks"):
        sp.wrap(Small(), points=["blocks.7"])
    with pytest.raises(sp.WrapError, match="other tensors pass it by"):
        sp.wrap(Small(), points=["blocks.0.body.0"])
    with pytest.raises(sp.WrapError, match="end in the same place"):
        sp.wrap(Small(), points=["blocks", "blocks.2"])


def test_train_and_eval_are_traced_apart():
    class Functional(Small):
        def forward(self, x):
            x = self.norm(self.blocks(self.stem(x))).mean((2, 3))
            return self.head(F.dropout(x, 0.5, self.training))

    net = sp.wrap(Functional())
    x = torch.randn(4, 3, 16, 16)
    net.eval()
    assert torch.equal(net(x), net(x))
    net.train().instance("full")
    assert not torch.equal(net(x), net(x))


def test_a_copy_is_a_network_of_its_own():
    net = sp.wrap(Small())
    sp.calibrate(net, loader())
    other = copy.deepcopy(net).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = net.eval().instance("0@0.5")(x)
        torch.testing.assert_close(other.instance("0@0.5")(x), expected)
        other.stem.weight.zero_()
        assert not torch.allclose(other(x), expected)
        torch.testing.assert_close(net(x), expected)
    other.train().instance(None)
    other(x)
    assert net.draws.step == 0 and other.draws.step == 1


def test_pickling_it_whole_says_what_to_save():
    with pytest.raises(TypeError, match=r"state_dict\(\) and net.sdpoint_state"):
        torch.save(sp.wrap(Small()), io.BytesIO())


# Drawing


def drawn(net, steps, x=None):
    x = torch.randn(2, 3, 16, 16) if x is None else x
    names = []
    for _ in range(steps):
        net(x)
        names.append(net.current)
    return names


def test_a_draw_depends_on_seed_and_step_alone():
    net = sp.wrap(Small(), seed=3).train()
    first = drawn(net, 20)
    assert len(set(first)) > 4 and net.draws.step == 20
    state = net.sdpoint_state()
    later = drawn(net, 5)
    other = sp.wrap(Small(), seed=0).train()
    torch.randn(100)
    other.load_sdpoint_state(state)
    assert drawn(other, 5) == later
    net.draws.step = 0
    assert drawn(net, 20) == first
    net.draws.seed, net.draws.step = 4, 0
    assert drawn(net, 20) != first


def test_points_are_equally_likely_and_full_among_them():
    draws = sp.Draws(seed=1)
    instances = [sp.Instance.parse(n) for n in sp.wrap(Small()).instances]
    counts = {}
    for step in range(20_000):
        name = str(draws.at(step, instances))
        counts[name] = counts.get(name, 0) + 1
    assert counts.keys() == {str(i) for i in instances}
    assert abs(counts["full"] / 20_000 - 1 / 4) < 0.015
    for name, count in counts.items():
        assert name == "full" or abs(count / 20_000 - 1 / 8) < 0.012, name


def test_other_ways_to_draw():
    instances = [sp.Instance.parse(n) for n in ("full", "0@0.5", "1@0.5")]
    assert sp.Draws("instances").weights(instances) == [1, 1, 1]
    assert sp.Draws("full:0.5").weights(instances) == [0.5, 0.25, 0.25]
    costs = {"full": 100, "0@0.5": 50, "1@0.5": 25}
    assert sp.Draws("cost:-1").weights(instances, costs) == [1, 2, 4]
    net = sp.wrap(Small(), draw="cost:-1").train()
    assert len(set(drawn(net, 20))) > 3
    for wrong in ("often", "full", "full:2", "cost:x", "uniform:1"):
        with pytest.raises(ValueError, match="is not a way to draw"):
            sp.Draws(wrong)


def test_a_chosen_instance_stays_until_none_is():
    net = sp.wrap(Small()).train().instance("1@0.6")
    assert drawn(net, 3) == ["1@0.6"] * 3 and net.draws.step == 0
    assert len(set(drawn(net.instance(None), 12))) > 2
    for name, text in (("9@0.5", "no point 9"), ("3", "not an instance"), ("0@1", "not an inst")):
        with pytest.raises(sp.InstanceError, match=text):
            net.instance(name)


def test_one_draw_a_step_of_the_optimiser_it_follows():
    net = sp.wrap(Small()).train()
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    net.follow(optimizer)
    steps = []
    for _ in range(8):
        names = []
        for _ in range(3):
            net(torch.randn(2, 3, 16, 16)).sum().backward()
            names.append(net.current)
        assert len(set(names)) == 1
        steps += names[:1]
        optimizer.step()
        optimizer.zero_grad()
    assert net.draws.step == 8 and len(set(steps)) > 2


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_draws_once_and_moves_statistics_once(reentrant):
    plain, kept = (sp.wrap(randomised(Small(), 1), seed=5).train() for _ in range(2))
    kept.load_state_dict(plain.state_dict())
    # Two forwards before one backward: each is recomputed in its own instance.
    images = [torch.randn(4, 3, 16, 16, requires_grad=True) for _ in range(4)]
    sum(plain(x).square().mean() for x in images).backward()
    names = plain.draws.step
    sum(checkpoint(kept, x, use_reentrant=reentrant).square().mean() for x in images).backward()
    assert kept.draws.step == names == 4
    for left, right in zip(plain.parameters(), kept.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad)
    assert all(torch.allclose(a, b) for a, b in zip(plain.buffers(), kept.buffers(), strict=True))


def test_stages_can_be_checkpointed():
    plain, kept = (sp.wrap(randomised(Small(), 1), seed=2).train() for _ in range(2))
    kept.load_state_dict(plain.state_dict())
    kept.checkpointing = True
    for _ in range(6):
        x = torch.randn(4, 3, 16, 16)
        for net in (plain, kept):
            net(x).square().mean().backward()
    assert plain.draws.step == kept.draws.step == 6
    for left, right in zip(plain.parameters(), kept.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad)
    for left, right in zip(plain.buffers(), kept.buffers(), strict=True):
        torch.testing.assert_close(left, right)


# Statistics


def test_steps_of_full_alone_move_running_statistics():
    module = randomised(Small())
    net = sp.wrap(module).train()
    x = torch.randn(4, 3, 16, 16)
    before = statistics(net)
    for instance in net.instances[1:]:
        net.instance(instance)(x)
    assert same(statistics(net), before)
    plain = copy.deepcopy(module).train()
    plain(x)
    net.instance("full")(x)
    assert same(statistics(net), statistics(plain)) and not same(statistics(net), before)


def test_calibration_is_the_plain_average_of_each_instance():
    net = sp.wrap(randomised(Small()), ratios=(0.5,))
    batches = [torch.randn(6, 3, 16, 16) + i for i in range(3)]
    tracked = net.norm.num_batches_tracked.clone()
    sp.calibrate(net, batches, images=18)
    for instance in net.instances:
        seen = {}
        reference = sp.wrap(copy.deepcopy(net._tree)).train().instance(instance)
        hooks = [
            m.register_forward_pre_hook(
                lambda m, a, n=n, seen=seen: seen.setdefault(n, []).append(a[0])
            )
            for n, m in reference.named_modules()
            if isinstance(m, nn.BatchNorm2d)
        ]
        with torch.no_grad():
            for batch in batches:
                reference(batch)
        for hook in hooks:
            hook.remove()
        behind = net._behind(sp.Instance.parse(instance))
        for path in behind:
            means = torch.stack([x.mean((0, 2, 3)) for x in seen[path]]).mean(0)
            variances = torch.stack([x.var((0, 2, 3)) for x in seen[path]]).mean(0)
            if instance == "full":
                found = net._norms.module(path).running_mean, net._norms.module(path).running_var
            else:
                found = net.statistics.own[instance][path]
            torch.testing.assert_close(found[0], means, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found[1], variances, rtol=1e-4, atol=1e-5)
        assert instance == "full" or net.statistics.own[instance].keys() == set(behind)
    assert torch.equal(net.norm.num_batches_tracked, tracked)
    assert net.norm.momentum == 0.1 and net.training is not None


def test_the_common_prefix_is_computed_once():
    net = sp.wrap(Small(), ratios=(0.3, 0.5, 0.75))
    calls = []
    net._tree.stem.register_forward_hook(lambda *a: calls.append("stem"))
    net._tree.blocks[1].body[0].register_forward_hook(lambda *a: calls.append("block 1"))
    sp.calibrate(net, [torch.randn(4, 3, 16, 16)] * 2, images=8)
    # Block 1 lies behind point 0 alone: full and its three instances.
    assert calls.count("stem") == 2 and calls.count("block 1") == 8
    calls.clear()
    net.curve([(torch.randn(4, 3, 16, 16), torch.zeros(4, dtype=torch.long))])
    assert calls.count("stem") == 1 and calls.count("block 1") == 4


def test_a_smaller_last_batch_does_not_count():
    net = sp.wrap(Small())
    whole = [torch.randn(8, 3, 16, 16) for _ in range(2)]
    sp.calibrate(net, whole, images=16)
    expected = {k: v.clone() for k, v in net.statistics.state_dict().items()}
    sp.calibrate(net, [*whole, torch.randn(3, 3, 16, 16) + 9], images=100)
    assert same(net.statistics.state_dict(), expected)
    sp.calibrate(net, [*whole, torch.randn(8, 3, 16, 16) + 9], images=20)
    assert same(net.statistics.state_dict(), expected)


def test_statistics_go_with_a_checkpoint_beside_the_state_dict():
    net = sp.wrap(randomised(Small()))
    sp.calibrate(net, loader())
    other = sp.wrap(Small())
    other.load_state_dict(net.state_dict())
    other.load_sdpoint_state(net.sdpoint_state())
    x = torch.randn(2, 3, 16, 16)
    for instance in net.instances:
        left, right = (n.eval().instance(instance)(x) for n in (net, other))
        torch.testing.assert_close(left, right)
    assert other.double().instance("0@0.5")(x.double()).dtype == torch.float64


def test_curve_measures_every_instance():
    net = sp.wrap(Small())
    data = loader(shuffle=False)
    sp.calibrate(net, data, images=64)
    rows = net.curve(data)
    assert [row.instance for row in rows] == net.instances
    net.eval()
    for row in rows:
        net.instance(row.instance)
        with torch.no_grad():
            logits = torch.cat([net(x) for x, _ in data])
        labels = torch.cat([y for _, y in data])
        assert row.top1 == pytest.approx((logits.argmax(1) == labels).double().mean().item())
        assert row.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-4)
        assert row.macs == net.cost(16)[row.instance] and 0 < row.share <= 1
        assert row.top1 <= row.top5 <= 1


def test_profile_times_every_instance_and_changes_nothing():
    net = sp.wrap(Small()).train()
    before = statistics(net)
    for training in (False, True):
        rows = net.profile("cpu", batch=2, size=16, rounds=1, training=training)
        assert [row.instance for row in rows] == net.instances
        assert all(row.milliseconds > 0 for row in rows)
    assert same(statistics(net), before) and net.training and net.draws.step == 0
    assert all(p.grad is None for p in net.parameters())


# Wrong use


def test_evaluation_before_calibration_says_to_calibrate():
    net = sp.wrap(Small()).eval()
    x = torch.randn(2, 3, 16, 16)
    net(x)  # full has its statistics
    with pytest.raises(sp.StatisticsError, match="calibrate"):
        net.instance("0@0.5")(x)
    with pytest.raises(sp.StatisticsError, match="calibrate"):
        net.curve(loader())
    sp.calibrate(net, loader())
    net(x)
    net.train().instance("full")(x)
    with pytest.raises(sp.StatisticsError, match="out of date.*trained"):
        net.eval().instance("0@0.5")(x)
    sp.calibrate(net, loader())
    net.load_state_dict(net.state_dict())
    with pytest.raises(sp.StatisticsError, match="out of date.*loaded"):
        net(x)


def test_saving_says_what_is_missing(tmp_path):
    path = tmp_path / "model.safetensors"
    net = sp.wrap(Small())
    good = dict(size=16, mean=(0.5,) * 3, std=(0.2,) * 3)
    with pytest.raises(sp.StatisticsError, match="calibrate"):
        sp.save(net, path, preprocessing=good)
    sp.calibrate(net, loader())
    wrong = {
        "size=224": None,
        "lacks std": dict(size=16, mean=(0, 0, 0)),
        "no 'crop'": good | {"crop": 3},
        "takes 3 colours": good | {"mean": (0.5,)},
        "values from 0 to 1": good | {"mean": (123, 117, 104), "std": (58, 57, 57)},
        "std must be above": good | {"std": (0.2, 0.0, 0.1)},
        "is none of": good | {"interpolation": "cubic"},
        "size is 0": good | {"size": 0},
        "a number for each of the 3 colours": good | {"mean": 0.5},
    }
    for text, preprocessing in wrong.items():
        with pytest.raises(sp.ModelFileError, match=text):
            sp.save(net, path, preprocessing=preprocessing)
    with pytest.raises(sp.ModelFileError, match="names 3"):
        sp.save(net, path, preprocessing=good, classes=["a", "b", "c"])
    with pytest.raises(sp.ModelFileError, match="is a folder"):
        sp.save(net, tmp_path, preprocessing=good)
    with torch.no_grad():
        net.stem.weight[0] = float("nan")
    with pytest.raises(sp.ModelFileError, match=r"stem\.weight.*not finite"):
        sp.save(net, path, preprocessing=good)
    assert not list(tmp_path.iterdir())


def test_transformers_are_refused_in_words():
    models = pytest.importorskip("torchvision.models")
    with pytest.raises(sp.WrapError, match="transformer .*residual blocks"):
        sp.wrap(models.vit_b_16())


def test_shared_norms_are_refused():
    net = Small()
    net.blocks[2].body[4] = net.norm
    with pytest.raises(sp.WrapError, match=r"'blocks\.2\.body\.4' is shared"):
        sp.wrap(net, engine=False)
    # Two modules may share a scale.
    net = Small()
    net.blocks[2].body[4].weight = net.norm.weight
    assert sp.wrap(net).points


def test_frozen_norms_are_warned_of_and_frozen_weights_are_not():
    net = sp.wrap(Small()).train()
    for parameter in net.blocks.parameters():
        parameter.requires_grad_(False)
    x = torch.randn(2, 3, 16, 16)
    net.instance("0@0.5")(x).sum().backward()
    net.blocks.eval()
    with pytest.warns(UserWarning, match=r"blocks\.1\.body\.1.*requires_grad_\(False\)") as seen:
        net(x)
    # It points at the call, not into PyTorch.
    assert seen[0].filename == __file__


def test_measurements_refuse_what_they_cannot_measure():
    net = sp.wrap(Small()).eval()
    x = torch.randn(2, 3, 16, 16)
    for size, kind in [(None, TypeError), (1.5, TypeError), ((8,), TypeError), (0, ValueError)]:
        with pytest.raises(kind, match="size is"):
            net.cost(size)
        with pytest.raises(kind, match="size is"):
            net.profile(size=size)
    assert net.cost(torch.tensor(16)) == net.cost((16, 16))
    for name in ("batch", "rounds"):
        with pytest.raises(ValueError, match=f"{name} is 0"):
            net.profile(size=16, **{name: 0})
    for loader in ([x], [(x,)], [{"image": x}], [(x, [0, 1])]):
        with pytest.raises(TypeError, match=r"pairs \(images, labels\)"):
            net.curve(loader, instances=["full"])


def test_points_are_feature_maps():
    net = pytest.importorskip("torchvision.models").resnet18()
    assert sp.wrap(net, points=["layer4.1"]).points
    with pytest.raises(sp.WrapError, match="'fc' is no point: feature maps have been"):
        sp.wrap(net, points=["layer1.0", "fc"])


def test_branches_have_instances_to_draw():
    for draw in ("full:1", "menu:full=1"):
        with pytest.raises(ValueError, match="leaves no instance to the branches"):
            sp.wrap(Small(), method="branched", draw=draw)
        assert sp.wrap(Small(), draw=draw).points


def test_a_batch_of_one_is_explained():
    net = sp.wrap(Small(), ratios=(0.5,)).train()
    with pytest.raises(sp.InstanceError, match="drop_last=True"):
        net.instance("1@0.5")(torch.randn(1, 3, 4, 4))
    net(torch.randn(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"unsqueeze\(0\)"):
        net(torch.randn(3, 16, 16))


def test_images_that_do_not_fit_are_explained():
    net = sp.wrap(Small()).train()
    x = torch.randn(2, 3, 16, 16)
    cases = [
        (x.half(), TypeError, r"float16, the weights float32.*autocast"),
        (x.double(), TypeError, r"images\.to\(torch\.float32\)"),
        ((x * 9).to(torch.uint8), TypeError, "uint8: convert them to float32"),
        (x.numpy(), TypeError, "not ndarray; torch.from_numpy"),
        (x.to("meta"), ValueError, r"on meta, the network on cpu: images\.to\('cpu'\)"),
        (x[:, :1], ValueError, r"1 channels; the network takes 3$"),
        (x.permute(0, 2, 3, 1), ValueError, "permute.*channels first"),
    ]
    for images, kind, text in cases:
        with pytest.raises(kind, match=text):
            net(images)
    for instance in net.instances:
        net.instance(instance)(torch.randn(2, 3, 11, 26))


def test_arguments_of_other_kinds_are_explained():
    for ratios in (0.5, "0.5"):
        with pytest.raises(sp.InstanceError, match="give a list of numbers"):
            sp.wrap(Small(), ratios)
    with pytest.raises(TypeError, match=r"points=\['blocks.0'\]"):
        sp.wrap(Small(), points="blocks.0")
    with pytest.raises(sp.WrapError, match="points names no module"):
        sp.wrap(Small(), points=[])
    with pytest.raises(TypeError, match="call Small first"):
        sp.wrap(Small)
    net = sp.wrap(Small())
    with pytest.raises(sp.InstanceError, match="'3' is not an instance"):
        net.instance(3)
    with pytest.raises(ValueError, match="images is 0"):
        sp.calibrate(net, loader(), images=0)
    with pytest.raises(ValueError, match="all parameters are frozen"):
        sp.adapt(Small().requires_grad_(False), loader(), 1)


def test_pools_of_fixed_size_are_explained():
    class Fixed(Small):
        def forward(self, x):
            x = F.avg_pool2d(self.norm(self.blocks(self.stem(x))), 8)
            return self.head(x.view(x.size(0), -1))

    with pytest.raises(sp.EngineError, match="AdaptiveAvgPool2d"):
        sp.wrap(Fixed())
    net = sp.wrap(Fixed(), engine=False).train()
    net.instance("full")(torch.randn(2, 3, 16, 16))
    with pytest.raises(sp.InstanceError, match="maps of 4x4.*AdaptiveAvgPool2d"):
        net.instance("1@0.5")(torch.randn(2, 3, 16, 16))


def test_loaders_in_the_order_of_classes_are_warned_of():
    net = sp.wrap(Small())
    with pytest.warns(UserWarning, match="shuffle=True"):
        sp.calibrate(net, loader(shuffle=False), images=32)
    with pytest.raises(TypeError, match="batches of images"):
        sp.calibrate(net, ["cat.jpg"])
    with pytest.raises(sp.StatisticsError, match="no images"):
        sp.calibrate(net, [])


def test_what_cannot_be_wrapped_says_why():
    cases = [
        (sp.wrap(Small()), sp.WrapError, "wrapped already"),
        (nn.DataParallel(Small()), sp.WrapError, "wrap the network first"),
        (torch.compile(Small()), sp.WrapError, "before it is compiled"),
        (lambda x: x, TypeError, "takes an nn.Module"),
        (Small().state_dict(), TypeError, "takes an nn.Module"),
    ]
    for module, kind, text in cases:
        with pytest.raises(kind, match=text):
            sp.wrap(module)

    class Looks(Small):
        def forward(self, x):
            return super().forward(x if x.sum() > 0 else -x)

    with pytest.raises(sp.WrapError, match="cannot be traced.*submodule"):
        sp.wrap(Looks())
    with pytest.raises(sp.InstanceError, match="not a ratio"):
        sp.wrap(Small(), ratios=(0.5, 1.5))


def test_modules_that_cannot_be_traced_are_leaves():
    class Odd(nn.Module):
        def forward(self, x):
            return x if float(x.sum()) > 0 else x * 1

    net = Small()
    net.blocks.append(Odd())
    with pytest.raises(sp.EngineError, match=r"'blocks\.3'.*cannot look into"):
        sp.wrap(net)
    wrapped = sp.wrap(net, engine=False)
    assert wrapped.instance("1@0.5")(torch.randn(2, 3, 16, 16)).shape == (2, 10)
