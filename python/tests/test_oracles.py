"""Recorded results: logits of every instance, a step's loss and gradients, statistics.

The engine's own tests compare with the same files.
"""

import csv

import pytest
import torch
import torch.nn.functional as F
from conftest import ORACLES, difference
from oracles import NETWORKS
from safetensors.torch import load_file

import sdpoint.torch as sp
from sdpoint.torch.train.networks import build

models = pytest.importorskip("torchvision.models")


def oracle(name):
    record = load_file(ORACLES / f"{name}.safetensors")
    net = sp.wrap(NETWORKS[name]())
    weights = {k[len("weights/") :]: v for k, v in record.items() if k.startswith("weights/")}
    missing, unexpected = net.load_state_dict(weights, strict=False)
    assert not unexpected and all(key.endswith("num_batches_tracked") for key in missing)
    return net, record


@pytest.mark.parametrize("name", NETWORKS)
def test_logits_of_every_instance(name):
    net, record = oracle(name)
    net.eval()
    recorded = {k.split("/")[1]: v for k, v in record.items() if k.startswith("logits/")}
    assert set(recorded) == set(net.instances)
    # They were recorded with the statistics of full in all instances.
    full = {
        p: (net._norms.module(p).running_mean, net._norms.module(p).running_var)
        for p in net._norms.paths
    }
    for instance in net.instances[1:]:
        behind = net._behind(sp.Instance.parse(instance))
        net.statistics.own[instance] = {path: full[path] for path in behind}
    for instance, logits in recorded.items():
        with torch.no_grad():
            found = net.instance(instance)(record["input"])
        assert difference(found, logits) < 1e-5, instance


@pytest.mark.parametrize("name", NETWORKS)
def test_loss_and_gradients_of_a_step(name):
    steps = [
        k.split("/")[1] for k in load_file(ORACLES / f"{name}.safetensors") if k[:5] == "loss/"
    ]
    assert steps
    for instance in steps:
        net, record = oracle(name)
        net.train().instance(instance)
        loss = F.cross_entropy(net(record["input"]), record["labels"])
        loss.backward()
        assert abs(loss.item() - record[f"loss/{instance}"].item()) < 1e-4
        prefix = f"grad/{instance}/"
        grads = {k[len(prefix) :]: v for k, v in record.items() if k.startswith(prefix)}
        assert grads.keys() == dict(net.named_parameters()).keys()
        # Some are zero but for rounding: shifts before another norm.
        largest = max(grad.abs().max() for grad in grads.values())
        for name_of, expected in grads.items():
            found = net.get_parameter(name_of).grad
            allowed = 2e-4 * max(expected.abs().max(), 1e-3 * largest)
            assert (found - expected).abs().max() < allowed, name_of


@pytest.mark.parametrize("name", NETWORKS)
def test_statistics_and_logits_after_calibration(name):
    record = load_file(ORACLES / f"{name}.safetensors")
    instances = sorted({k.split("/")[1] for k in record if k.startswith("calibrated/")})
    assert instances
    net, record = oracle(name)
    # Recorded with the batch as two halves.
    sp.calibrate(net, list(record["input"].chunk(2)), instances=instances)
    net.eval()
    norms = {path: net._norms.module(path) for path in net._norms.paths}
    full = {path: (norm.running_mean, norm.running_var) for path, norm in norms.items()}
    for instance in instances:
        own = full if instance == "full" else net.statistics.own[instance]
        for path, (mean, var) in own.items():
            key = f"calibrated/{instance}/{path}"
            torch.testing.assert_close(mean, record[f"{key}.running_mean"], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(var, record[f"{key}.running_var"], rtol=1e-4, atol=1e-5)
        with torch.no_grad():
            found = net.instance(instance)(record["input"])
        assert difference(found, record[f"calibrated/{instance}/logits"]) < 1e-4


BUILDERS = {
    "preresnet20": lambda: build("preresnet20", 10),
    "wrn16-4": lambda: build("wrn16-4", 10),
    "resnet18": models.resnet18,
    "resnet50": models.resnet50,
    "resnext50_32x4d": models.resnext50_32x4d,
}


@pytest.mark.parametrize("name", BUILDERS)
def test_costs_are_the_recorded_ones(name):
    recorded, size = {}, 0
    with open(ORACLES / "macs.csv") as file:
        for row in csv.DictReader(file):
            if row["network"] == name:
                full = row["point"] == "none"
                key = "full" if full else f"{row['point']}@{row['ratio']}"
                recorded[key], size = int(row["macs"]), int(row["input"])
    assert recorded
    net = sp.wrap(BUILDERS[name]())
    assert net.cost(size) == recorded
    # What PyTorch counts, without the engine's description, is the same.
    from sdpoint.torch.cost import _counted

    some = [sp.Instance.parse(i) for i in (net.instances[0], net.instances[1], net.instances[-2])]
    assert _counted(net, (size, size), 3, some) == {str(i): recorded[str(i)] for i in some}
