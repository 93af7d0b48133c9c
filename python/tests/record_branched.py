"""Records the step of test_branches.py for the engine's tests: `fixtures/oracles/branched-*`.

python tests/record_branched.py
"""

from conftest import ORACLES
from oracles import NETWORKS
from safetensors.torch import load_file, save_file
from test_branches import RECORDED, SMOOTHING, branched

import sdpoint.torch as sp

for name, instances in RECORDED.items():
    record = load_file(ORACLES / f"{name}.safetensors")
    net = branched(sp.wrap(NETWORKS[name]()), instances)
    weights = {k[len("weights/") :]: v for k, v in record.items() if k.startswith("weights/")}
    net.load_state_dict(weights, strict=False)
    net.double()
    output = net(record["input"].double())
    # The predictions have been rounded to single precision in `loss`.
    total = sp.loss(output, record["labels"], label_smoothing=SMOOTHING)
    total.backward()
    step = {f"grad/{path}": p.grad.float() for path, p in net.named_parameters()}
    step["loss"] = total.detach().float().reshape(1)
    save_file(step, ORACLES / f"branched-{name}.safetensors")
