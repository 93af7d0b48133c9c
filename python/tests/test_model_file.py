"""Model files, written and read back."""

import hashlib
import json
import struct
from types import SimpleNamespace

import pytest
import torch
from conftest import Small, randomised
from safetensors import safe_open

import sdpoint.torch as sp
from sdpoint.torch import model_file, preprocessing

PREPROCESSING = dict(size=16, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1))


@pytest.fixture
def saved(tmp_path):
    net = sp.wrap(randomised(Small()), ratios=(0.5,))
    sp.calibrate(net, [torch.randn(8, 3, 16, 16)])
    path = tmp_path / "runs/model.safetensors"
    sp.save(net, path, preprocessing=PREPROCESSING, training={"by": "a test"})
    return net.eval(), path


def test_the_file_is_as_its_specification_says(saved):
    net, path = saved
    with safe_open(path, "np") as file:
        assert list(file.metadata()) == ["sdpoint"]
        about = json.loads(file.metadata()["sdpoint"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert list(about) == [
        "version",
        "sha256",
        "features",
        "network",
        "classes",
        "preprocessing",
        "instances",
        "training",
    ]
    assert about["version"] == 3 and about["features"] == []
    data = path.read_bytes()
    assert len(data) > 8 and (8 + struct.unpack("<Q", data[:8])[0]) % 8 == 0
    blank = data.replace(about["sha256"].encode(), b"0" * 64, 1)
    assert hashlib.sha256(blank).hexdigest() == about["sha256"]
    state = net.state_dict()
    plain = {k for k in state if not k.endswith("num_batches_tracked")}
    own = set(net.statistics.state_dict())
    assert tensors.keys() == plain | own
    assert all(t.dtype == "float32" for t in tensors.values())
    assert "instances/1@0.5/blocks.2.body.1.running_mean" in own
    assert "instances/1@0.5/blocks.1.body.1.running_mean" not in own
    assert [p["id"] for p in about["network"]["points"]] == ["0", "1", "2"]
    assert [r["instance"] for r in about["instances"]] == net.instances
    assert about["preprocessing"]["evaluate"] == "resize"
    names = [layer["name"] for layer in about["network"]["layers"]]
    assert len(set(names)) == len(names) and names[0] == "input"


def test_equal_models_make_equal_bytes(saved, tmp_path):
    net, path = saved
    again = tmp_path / "again.safetensors"
    sp.save(net, again, preprocessing=PREPROCESSING, training={"by": "a test"})
    assert again.read_bytes() == path.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.safetensors", "runs"]


def test_a_file_becomes_a_network_again(saved):
    net, path = saved
    x = torch.randn(2, 3, 21, 16)
    for other in (sp.load(path), sp.load(path, into=sp.wrap(Small(), (0.5,)))):
        other.eval()
        assert other.instances == net.instances
        for instance in net.instances:
            with torch.no_grad():
                left, right = (n.instance(instance)(x) for n in (net, other))
            torch.testing.assert_close(left, right)
    # It trains, and is saved as it came.
    other = sp.load(path)
    other.train()(x).sum().backward()
    sp.calibrate(other, [torch.randn(8, 3, 16, 16)])
    sp.save(other, path, preprocessing=PREPROCESSING)
    assert sp.load(path).instances == net.instances


def test_parameters_of_an_instances_own_are_kept(saved, tmp_path):
    net, path = saved
    x = torch.randn(2, 3, 16, 16)
    shared = net.instance("0@0.5")(x)
    behind = [*net._behind(sp.Instance.parse("0@0.5"))]
    net.statistics.parameters["0@0.5"] = {
        norm: {name: torch.rand(len(net.get_parameter(f"{norm}.{name}"))) + 0.5 for name in kinds}
        for norm in behind
        for kinds in [("weight", "bias")]
    } | {"head": {"bias": torch.randn(10)}}
    own = net(x)
    assert (own - shared).abs().max() > 0.1
    sp.save(net, path, preprocessing=PREPROCESSING)
    about, _ = model_file.read(path)
    assert about["features"] == ["own_parameters"] and about["own_parameters"] == ["0@0.5"]
    other = sp.load(path).eval()
    torch.testing.assert_close(other.instance("0@0.5")(x), own)
    batch = [(x, torch.tensor([0, 1]))]
    assert other.curve(batch)[1].loss == pytest.approx(net.curve(batch)[1].loss)
    # Others and full have the network's, before and after.
    for instance in ("full", "1@0.5"):
        torch.testing.assert_close(other.instance(instance)(x), net.instance(instance)(x))
    again = sp.wrap(Small(), (0.5,))
    again.load_state_dict(other.state_dict())
    again.load_sdpoint_state(other.sdpoint_state())
    torch.testing.assert_close(again.eval().instance("0@0.5")(x), own)
    # New statistics belong to the network's parameters.
    sp.calibrate(other, [torch.randn(8, 3, 16, 16)])
    sp.save(other, tmp_path / "new.safetensors", preprocessing=PREPROCESSING)
    assert model_file.read(tmp_path / "new.safetensors")[0]["features"] == []


def test_what_the_engine_would_refuse_is_not_written(saved, tmp_path):
    net, path = saved
    for wrong in (
        {"train": "x"},
        {"train": {"pad_crop": {"padding": "a", "flip": True}}},
        {"train": {"pad_crop": {"padding": 4}}},
        {"evaluate": "x"},
        {"evaluate": {"center_crop": {"resize": 0}}},
    ):
        with pytest.raises(sp.ModelFileError, match="train is|evaluate is"):
            sp.save(net, tmp_path / "x.safetensors", preprocessing=PREPROCESSING | wrong)
    good = {"train": {"pad_crop": {"padding": 4, "flip": True}}}
    sp.save(net, tmp_path / "x.safetensors", preprocessing=PREPROCESSING | good)
    impossible = SimpleNamespace(instance="full", top1=1.0, top5=7.0, loss=1.0)
    with pytest.raises(sp.ModelFileError, match="impossible accuracy of full"):
        sp.save(net, path, preprocessing=PREPROCESSING, curve=[impossible])


def test_states_of_other_networks_are_refused(saved):
    net, path = saved
    other = sp.wrap(Small(), (0.5,), points=["blocks.1"])
    with pytest.raises(sp.ModelFileError, match="at another place"):
        sp.load(path, into=other)
    with pytest.raises(ValueError, match="another network"):
        other.load_sdpoint_state(net.sdpoint_state())
    with pytest.raises(ValueError, match="lacks 'draws'"):
        net.load_sdpoint_state({})


def test_accuracies_go_into_the_file(saved):
    net, path = saved
    rows = net.curve([(torch.randn(4, 3, 16, 16), torch.tensor([0, 1, 2, 3]))])
    sp.save(net, path, preprocessing=PREPROCESSING, curve=rows, classes=list("abcdefghij"))
    about, _ = model_file.read(path)
    assert [r["top1"] for r in about["instances"]] == [row.top1 for row in rows]
    assert about["classes"][:2] == ["a", "b"]


def test_damage_is_noticed(saved, tmp_path):
    _, path = saved
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[-3] ^= 1
    faults = {
        "altered": bytes(flipped),
        "cannot read": data[:-4],
        "version 9": data.replace(b'\\"version\\": 3', b'\\"version\\": 9', 1),
        "hat, which": data.replace(b'\\"features\\": []', b'\\"features\\": [\\"hat\\"]', 1),
    }
    for text, changed in faults.items():
        # Another length of the header is told at its start.
        length = struct.unpack("<Q", changed[:8])[0] + len(changed) - len(data)
        bad = tmp_path / "bad.safetensors"
        start = changed[:8] if text == "cannot read" else struct.pack("<Q", length)
        bad.write_bytes(start + changed[8:])
        with pytest.raises(sp.ModelFileError, match=text):
            sp.load(bad)
    with pytest.raises(sp.ModelFileError, match="cannot read"):
        sp.load(tmp_path / "none.safetensors")
    plain = tmp_path / "plain.safetensors"
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, plain)
    with pytest.raises(sp.ModelFileError, match="no sdpoint description"):
        sp.load(plain)
    with pytest.raises(sp.ModelFileError, match="another network"):
        sp.load(path, into=sp.wrap(_other()))


def _other():
    net = Small()
    net.extra = torch.nn.Linear(3, 3)
    return net


def test_features_are_named_in_order(tmp_path):
    net = Small()
    net.blocks.append(torch.nn.ReLU6())
    net = sp.wrap(net)
    sp.calibrate(net, [torch.randn(8, 3, 16, 16)])
    path = tmp_path / "model.safetensors"
    turned = PREPROCESSING | {"exif_orientation": "apply", "resize": (20, 20)}
    sp.save(net, path, preprocessing=turned)
    about, _ = model_file.read(path)
    assert about["features"] == ["exif_orientation", "relu6", "squash_crop"]
    x = torch.randn(2, 3, 16, 16) * 9
    with torch.no_grad():
        torch.testing.assert_close(sp.load(path).eval()(x), net.eval()(x))


def test_preprocessing_of_torchvision_and_timm():
    preset = SimpleNamespace(
        crop_size=[224],
        resize_size=[232],
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
        interpolation=SimpleNamespace(value="bilinear"),
    )
    found = preprocessing.checked(preset, 3)
    assert found["size"] == [224, 224] and found["evaluate"] == {"center_crop": {"resize": 232}}
    assert preprocessing.features(found) == []
    config = dict(
        input_size=(3, 224, 224),
        crop_pct=0.95,
        interpolation="bicubic",
        crop_mode="center",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    found = preprocessing.checked(config, 3)
    assert found["evaluate"] == {"center_crop": {"resize": 235}}
    assert preprocessing.features(found) == ["interpolation"]
    found = preprocessing.checked(config | {"crop_mode": "squash"}, 3)
    assert preprocessing.features(found) == ["interpolation", "squash_crop"]
    turned = PREPROCESSING | {"exif_orientation": "apply", "resize": 20}
    assert preprocessing.features(preprocessing.checked(turned, 3)) == ["exif_orientation"]
