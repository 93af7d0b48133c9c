"""Every instance gives the same logits in PyTorch and in sdpoint's engine."""

import copy
import subprocess

import pytest
import torch
import torch.nn.functional as F
from conftest import PROGRAMS, Small, difference, engine_logits, randomised
from torch import nn

import sdpoint.torch as sp

timm = pytest.importorskip("timm")
models = pytest.importorskip("torchvision.models")

IMAGENET = dict(size=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=256)

NETWORKS = {
    "torchvision-resnet18": lambda: models.resnet18(num_classes=7),
    "torchvision-resnet50": lambda: models.resnet50(num_classes=7),
    "torchvision-resnext50": lambda: models.resnext50_32x4d(num_classes=7),
    "torchvision-wide50": lambda: models.wide_resnet50_2(num_classes=7),
    "torchvision-regnet": lambda: models.regnet_x_400mf(num_classes=7),
    "torchvision-mobilenet": lambda: models.mobilenet_v2(num_classes=7),
    "timm-mobilenet": lambda: timm.create_model("mobilenetv2_100", num_classes=7),
    "torchvision-mnasnet": lambda: models.mnasnet0_5(num_classes=7),
    "timm-resnet34": lambda: timm.create_model("resnet34", num_classes=7),
    "timm-resnet50": lambda: timm.create_model("resnet50", num_classes=7),
    "timm-resnext50": lambda: timm.create_model("resnext50_32x4d", num_classes=7),
    "own": lambda: Small(classes=7),
}


def calibrated(build, side, **options):
    """A wrapped network with random weights whose instances have statistics of their own."""
    net = sp.wrap(randomised(build()), **options)
    sp.calibrate(net, [torch.randn(4, 3, side, side) for _ in range(2)], images=8)
    return net.eval()


def rounding(net, images):
    """How far PyTorch's single precision is from double, in the worst instance."""
    exact = copy.deepcopy(net).double()
    worst = 0.0
    for instance in net.instances:
        with torch.no_grad():
            single = net.instance(instance)(images)
            double = exact.instance(instance)(images.double())
        worst = max(worst, difference(single, double))
    return worst


@pytest.mark.engine
@pytest.mark.parametrize("name", NETWORKS)
def test_logits_of_every_instance_are_the_engines(name, tmp_path):
    side = 33 if name == "own" else 95
    ratios = (0.5, 0.75) if name in ("own", "torchvision-resnet18") else (0.6,)
    net = calibrated(NETWORKS[name], side, ratios=ratios)
    path = tmp_path / "model.safetensors"
    sp.save(net, path, preprocessing=IMAGENET | {"size": side, "resize": side})
    images = torch.randn(2, 3, side, side)
    worst = {}
    for instance in net.instances:
        with torch.no_grad():
            expected = net.instance(instance)(images)
        worst[instance] = difference(engine_logits(path, instance, images), expected)
    allowed = 1e-4
    if max(worst.values()) > allowed:
        # The sums of wide layers are long: PyTorch's own logits are then as uncertain.
        allowed = 3 * rounding(net, images)
    assert max(worst.values()) < allowed, worst
    assert len(worst) == 1 + len(net.points) * len(ratios)
    # The instances differ, so that equality means something.
    with torch.no_grad():
        full, other = (net.instance(i)(images) for i in ("full", net.instances[1]))
    assert difference(other, full) > 1e-3


@pytest.mark.engine
def test_parameters_of_an_instances_own_are_the_engines(tmp_path):
    net = calibrated(NETWORKS["own"], 33)
    shared = {name: p.detach() for name, p in net.named_parameters()}
    for instance in ("0@0.5", "2@0.75"):
        description = net.lowered().description
        modules = net.statistics.parameters.setdefault(instance, {})
        for module, name in description.own_parameters(sp.Instance.parse(instance)):
            near = shared[f"{module}.{name}"] + 0.3 * torch.rand_like(shared[f"{module}.{name}"])
            modules.setdefault(module, {})[name] = near
    path = tmp_path / "model.safetensors"
    sp.save(net, path, preprocessing=IMAGENET | {"size": 33, "resize": 33})
    images = torch.randn(2, 3, 33, 33)
    for instance in net.instances:
        with torch.no_grad():
            expected = net.instance(instance)(images)
        assert difference(engine_logits(path, instance, images), expected) < 1e-4, instance


@pytest.mark.engine
def test_the_command_reads_the_file(tmp_path):
    program = PROGRAMS / "sdpoint"
    if not program.exists():
        pytest.skip("build the engine: cargo build --release -p sdpoint-cli")
    import json

    net = calibrated(NETWORKS["torchvision-resnet18"], 64)
    path = tmp_path / "model.safetensors"
    preprocessing = IMAGENET | {"interpolation": "bicubic", "resize": (250, 260)}
    sp.save(
        net, path, preprocessing=preprocessing, classes=['a "b"', "c\\d", "猫", "", "e", "f", "g"]
    )
    command = [program, "instances", path, "--json"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = {row["instance"]: row["macs"] for row in json.loads(ran.stdout)}
    assert found == net.cost(224)


@pytest.mark.engine
def test_in_place_operations_are_read_as_they_run(tmp_path):
    class Inplace(nn.Module):
        """The first ReLU changes the shortcut; the sum is written into the branch."""

        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 6, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)
            self.conv = nn.Conv2d(6, 6, 3, padding=1)
            self.norm = nn.BatchNorm2d(6)
            self.head = nn.Linear(6, 5)

        def forward(self, x):
            x = self.stem(x)
            y = self.norm(self.conv(self.relu(x)))
            y.add_(x)
            y = torch.nn.functional.relu(y, inplace=True)
            return self.head(torch.flatten(nn.functional.adaptive_avg_pool2d(y, 1), 1))

    net = sp.wrap(randomised(Inplace()), points=["stem"], ratios=(0.5,))
    sp.calibrate(net, [torch.randn(4, 3, 17, 17)])
    path = tmp_path / "model.safetensors"
    sp.save(net.eval(), path, preprocessing=IMAGENET | {"size": 17, "resize": None})
    images = torch.randn(2, 3, 17, 17)
    for instance in net.instances:
        with torch.no_grad():
            expected = net.instance(instance)(images.clone())
        assert difference(engine_logits(path, instance, images), expected) < 1e-4, instance


def test_what_the_engine_lacks_is_named_with_its_path():
    with pytest.raises(sp.EngineError) as error:
        sp.wrap(models.efficientnet_b0())
    text = str(error.value)
    assert "'features.0.2'" in text and "SiLU" in text and "engine=False" in text
    net = sp.wrap(models.efficientnet_b0(), engine=False)
    assert len(net.points) == 9 and len(net.cost(224)) == 19
    with pytest.raises(sp.EngineError, match="features.0.2"):
        sp.save(net, "never.safetensors", preprocessing=IMAGENET)


@pytest.mark.parametrize(
    "pooled",
    [
        lambda x: F.avg_pool2d(x, x.size()[2:]),
        lambda x: F.avg_pool2d(x, x.shape[-2:]),
        lambda x: F.avg_pool2d(input=x, kernel_size=(x.size(2), x.shape[3])),
        lambda x: torch.mean(x, (-2, -1), keepdim=True),
        lambda x: F.adaptive_avg_pool2d(x, (1, 1)),
    ],
)
def test_means_over_all_places_are_one_layer(pooled, tmp_path):
    class Pooled(Small):
        def forward(self, x):
            x = pooled(F.relu(input=self.norm(self.blocks(self.stem(x)))))
            return self.head(torch.flatten(input=x, start_dim=1))

    net = calibrated(lambda: Pooled(classes=7), 17)
    ops = [layer.op for layer in net.lowered().description.layers]
    assert ops.count("global_avg_pool") == 1 and "avg_pool" not in ops
    path = tmp_path / "model.safetensors"
    sp.save(net, path, preprocessing=IMAGENET | {"size": 17, "resize": None})
    images = torch.randn(2, 3, 17, 20)
    with torch.no_grad():
        expected = net.instance("1@0.5")(images)
        torch.testing.assert_close(sp.load(path).eval().instance("1@0.5")(images), expected)


@pytest.mark.parametrize(
    ("reduced", "text"),
    [
        (lambda x: F.avg_pool2d(x, x.size(2)), "window depends on the map"),
        (lambda x: F.avg_pool2d(x, x.size()[1:3]), "window depends on the map"),
        (lambda x: F.adaptive_avg_pool2d(x, 1).squeeze(), r"torch\.flatten\(x, 1\)"),
    ],
)
def test_other_pools_before_the_classifier_are_explained(reduced, text):
    class Pooled(Small):
        def forward(self, x):
            return self.head(torch.flatten(reduced(self.blocks(self.stem(x))), 1))

    with pytest.raises(sp.EngineError, match=text):
        sp.wrap(Pooled())


def test_mobilenets_points_are_its_sums():
    net = sp.wrap(models.mobilenet_v2())
    assert len(net.points) == 10 and net.cost(224)["full"] == 300_774_272


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.Conv2d(16, 16, 3, padding=2, dilation=2), "dilation"),
        (nn.Conv2d(16, 16, 3, padding=1, padding_mode="reflect"), "reflect"),
        (nn.GroupNorm(4, 16), "GroupNorm"),
        (nn.BatchNorm2d(16, track_running_stats=False), "track_running_stats"),
        (nn.AdaptiveAvgPool2d(2), "AdaptiveAvgPool2d\\(1\\)"),
        (nn.MaxPool2d(2, ceil_mode=True), "ceil_mode"),
        (nn.LeakyReLU(), "LeakyReLU"),
        (nn.Sequential(nn.Flatten(), nn.Unflatten(1, (16, 16, 16))), "flattens a feature map"),
    ],
)
def test_layers_of_other_kinds_are_refused_by_path(module, text):
    net = Small()
    net.blocks.append(module)
    with pytest.raises(sp.EngineError, match=text) as error:
        sp.wrap(net)
    assert "'blocks.3" in str(error.value)


def test_pools_that_round_up_are_refused_by_path():
    with pytest.raises(sp.EngineError, match=r"'layer2.0.downsample.0'.*ceil_mode=True"):
        sp.wrap(timm.create_model("resnet26d"))


def test_one_refused_layer_is_one_problem():
    """What follows from it is not listed."""
    with pytest.raises(sp.EngineError) as error:
        sp.wrap(timm.create_model("res2net50_26w_4s"))
    assert "calls split" in str(error.value) and "no feature map" not in str(error.value)


def test_shared_layers_are_refused_by_the_engine_alone():
    net = Small()
    net.blocks[2].body[0] = net.blocks[2].body[3] = nn.Conv2d(16, 16, 3, padding=1)
    with pytest.raises(sp.EngineError, match="blocks.2.body.* shared"):
        sp.wrap(net)
    assert sp.wrap(net, engine=False).points
