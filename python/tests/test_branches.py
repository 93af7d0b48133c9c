"""Branches of a step: against the formula written out, and against the engine's gradients."""

import pytest
import torch
import torch.nn.functional as F
from conftest import ORACLES, Small
from oracles import NETWORKS, PreResNet8
from safetensors.torch import load_file

import sdpoint.torch as sp
from sdpoint.torch.branches import Branching, parts
from sdpoint.torch.draw import early_points

#: What the recorded step was computed with; the engine's test has the same.
RECORDED = {
    "preresnet8": ("0@0.5", "1@0.75"),
    "resnet-mini-basic": ("stem@0.5",),
}
SETTINGS = Branching(branches=3, weight=0.8, distill=0.4, temperature=1.5, ramp=0.0)
SMOOTHING = 0.1


def branched(net, instances, branching=SETTINGS):
    """The net, whose branches are these instances."""
    net.branching = branching
    net.draws.branches_at = lambda step, count, all_of, costs: [
        sp.Instance.parse(name) for name in instances
    ][:count]
    return net.train()


def half_even(side, ratio):
    return max(1, round(side * ratio))


def test_loss_and_gradients_are_those_of_the_formula():
    torch.manual_seed(3)
    plain = PreResNet8().double().train()
    x, y = torch.randn(13, 3, 12, 12).double(), torch.randint(0, 10, (13,))
    instances = ("0@0.5", "2@0.75", "1@0.5")
    net = branched(sp.wrap(plain), instances)

    def blocks_after(x, first):
        for block in plain.blocks[first:]:
            x = block(x)
        x = torch.relu(plain.bn(x)).mean((2, 3))
        return plain.fc(x)

    at, states = plain.conv1(x), []
    for block in plain.blocks:
        at = block(at)
        states.append(at)
    full = blocks_after(at, 3)
    expected = F.cross_entropy(full, y, label_smoothing=SMOOTHING)
    soft = torch.softmax(full.detach() / 1.5, 1)
    for name, rows in zip(instances, (range(4), range(4, 8), range(8, 13)), strict=True):
        point, ratio = int(name[0]), float(name[2:])
        rows = list(rows)
        small = states[point][rows]
        size = [half_even(side, ratio) for side in small.shape[2:]]
        logits = blocks_after(F.adaptive_avg_pool2d(small, size), point + 1)
        teacher, student = soft[rows], torch.log_softmax(logits / 1.5, 1)
        taught = (teacher * (teacher.log() - student)).sum(1).mean()
        own = F.cross_entropy(logits, y[rows], label_smoothing=SMOOTHING)
        expected = expected + 0.8 * len(rows) / 13 * (0.6 * own + 0.4 * 1.5**2 * taught)
    gradients = torch.autograd.grad(expected, list(plain.parameters()))

    # In double precision, as the formula's is computed; `loss` itself computes in float.
    output = net(x)
    assert [branch.instance for branch in output.branches] == list(instances)
    found = sp.loss(output, y, label_smoothing=SMOOTHING)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    found.backward()
    for parameter, gradient in zip(plain.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", RECORDED)
def test_the_engines_gradients_are_the_same(name):
    record = load_file(ORACLES / f"{name}.safetensors")
    step = load_file(ORACLES / f"branched-{name}.safetensors")
    net = branched(sp.wrap(NETWORKS[name]()), RECORDED[name])
    weights = {k[len("weights/") :]: v for k, v in record.items() if k.startswith("weights/")}
    net.load_state_dict(weights, strict=False)
    found = sp.loss(net(record["input"]), record["labels"], label_smoothing=SMOOTHING)
    found.backward()
    assert found.item() == pytest.approx(step["loss"].item(), rel=1e-5)
    largest = max(value.abs().max() for value in step.values())
    for path, parameter in net.named_parameters():
        expected = step[f"grad/{path}"]
        allowed = 3e-4 * max(expected.abs().max(), 2e-3 * largest)
        assert (parameter.grad - expected).abs().max() < allowed, path


def test_layers_before_a_point_run_once_and_statistics_of_full_alone_move():
    plain = Small()
    calls = []
    net = sp.wrap(plain, method="branched")
    net.blocks[0].body[0].register_forward_hook(lambda *_: calls.append(0))
    reference = sp.wrap(plain).train().instance("full")
    x = torch.randn(16, 3, 12, 12)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    output = net.train()(x)
    assert calls == [0] and output.full.shape == (16, 10)
    assert [len(branch.logits) for branch in output.branches] == [4] * 4
    after = {k: v.clone() for k, v in net.state_dict().items()}
    net.load_state_dict(before)
    assert torch.equal(reference(x), output.full)
    assert all(torch.equal(v, after[k]) for k, v in reference.state_dict().items())
    # In evaluation and for a selected instance there are no branches.
    assert net.instance("full")(x).shape == (16, 10)
    assert net.instance(None).eval()(x).shape == (16, 10)


def test_checkpointing_and_accumulation_draw_the_same():
    x, y = torch.randn(16, 3, 12, 12), torch.randint(0, 10, (16,))

    def gradients(**changes):
        torch.manual_seed(1)
        net = sp.wrap(Small(), method="branched", seed=5).train()
        for name, value in changes.items():
            setattr(net, name, value)
        output = net(x)
        sp.loss(output, y).backward()
        assert net.draws.step == 1
        names = [branch.instance for branch in output.branches]
        return names, [p.grad for p in net.parameters()], net.state_dict()

    names, plain, state = gradients()
    again, recomputed, state_again = gradients(checkpointing=True)
    assert names == again
    for a, b in zip(plain, recomputed, strict=True):
        torch.testing.assert_close(a, b)
    for key, value in state.items():
        torch.testing.assert_close(value, state_again[key])


def test_the_preset_has_its_ratios_and_draws_early_points():
    net = sp.wrap(Small(), method="sdpoint+")
    assert net.ratios == (0.5, 0.6, 0.75)
    names = ["0@0.5", "0@0.6", "0@0.75", "1@0.75"]
    instances, costs = [sp.Instance.parse(i) for i in net.instances], net.cost(12)
    count = dict.fromkeys(net.instances, 0)
    for step in range(8000):
        count[str(net.draws.at(step, instances, costs))] += 1
    for name in ("full", *names):
        assert count[name] / 8000 == pytest.approx(0.16, abs=0.02)
    assert count["1@0.5"] > 100
    with pytest.raises(ValueError, match="not a method"):
        sp.wrap(Small(), method="sdpoint++")
    with pytest.raises(sp.InstanceError, match="menu has 9@0.5"):
        sp.wrap(Small(), draw="menu:9@0.5=1")


def test_shares_rise_and_parts_cover_the_batch():
    assert Branching().share(0.0) == 0 and Branching().share(0.5) == 0.5
    assert Branching().share(1 / 6) == pytest.approx(0.25)
    assert Branching(ramp=0).share(0.0) == 0.5
    for images, count in ((128, 4), (18, 4), (15, 3), (3, 1)):
        cut = parts(4, images)
        assert len(cut) == count
        rows = [row for part in cut for row in range(images)[part]]
        assert rows == list(range(images))
    with pytest.raises(ValueError, match="temperature is 0"):
        Branching(temperature=0)
    assert early_points([sp.Instance()]) == "menu:full=0.8"


def test_mixed_labels_are_probabilities():
    net = sp.wrap(Small(), method="branched").train()
    output = net(torch.randn(16, 3, 12, 12))
    labels = torch.randint(0, 10, (16,))
    hard = sp.loss(output, labels)
    soft = sp.loss(output, F.one_hot(labels, 10).float())
    torch.testing.assert_close(hard, soft)


def test_a_branched_run_adapts():
    batches = [(torch.randn(16, 3, 12, 12), torch.randint(0, 10, (16,))) for _ in range(3)]
    adapted = sp.adapt(Small(), batches, 1, method="sdpoint+", images=32, report=None)
    assert adapted.net.ratios == (0.5, 0.6, 0.75)
    assert adapted.net.eval().instance("0@0.6")(batches[0][0]).shape == (16, 10)


def test_wrong_uses_are_explained():
    net = sp.wrap(Small(), method="branched").train()
    x, labels = torch.randn(16, 3, 12, 12), torch.randint(0, 10, (16,))
    output = net(x)
    with pytest.raises(TypeError, match="sdpoint.torch.loss"):
        F.cross_entropy(output, labels)
    with pytest.raises(AttributeError, match=r"\.full"):
        output.argmax(1)
    for progress in (-1, 50, float("nan")):
        with pytest.raises(ValueError, match="from 0 to 1"):
            sp.loss(output, labels, progress=progress)
    with pytest.raises(TypeError, match="use_reentrant=False"):
        sp.loss(tuple(output), labels)
    with pytest.raises(TypeError, match="branches is 2.5"):
        Branching(branches=2.5)
    for draw in ("menu:0@0.5=0,full=0", "bogus:x"):
        with pytest.raises(ValueError):
            sp.wrap(Small(), draw=draw)
        with pytest.raises(ValueError):
            net.draws.method = draw
    with pytest.raises(TypeError, match="give method to wrap"):
        sp.adapt(net, [(x, labels)], 1, method="sdpoint+")
    with pytest.raises(ValueError, match="class number"):
        sp.calibrate(net, [x])
        net.curve([(x, F.one_hot(labels, 10).float())])
