"""torch.compile: one graph a stage and mode, however many instances there are."""

import copy
import resource

import pytest
import torch
import torch._dynamo
import torch._dynamo.testing
from conftest import Block, Small, randomised

import sdpoint.torch as sp


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def counted(net, how="method"):
    """The network compiled with a backend that counts graphs and runs them as they are."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    if how == "method":
        return net.compile(backend=counter), counter
    return torch.compile(net, backend=counter), counter


def run_all(net, wrapped, sizes=((16, 16),), rounds=1):
    for _ in range(rounds):
        for height, width in sizes:
            for instance in net.instances:
                x = torch.randn(4, 3, height, width)
                net.instance(instance)
                wrapped(x).sum().backward()


@pytest.mark.parametrize("how", ["method", "function"])
def test_graphs_do_not_grow_with_instances(how):
    counts = []
    for ratios in ((0.5,), (0.35, 0.5, 0.6, 0.7, 0.8, 0.9)):
        torch._dynamo.reset()
        net = sp.wrap(Small(), ratios).train()
        compiled, counter = counted(net, how)
        run_all(net, compiled, rounds=2)
        counts.append(counter.frame_count)
    # One for each of the four stages, which are of four forms.
    assert counts == [4, 4]


def test_branches_add_a_graph_a_stage_for_their_number_of_images():
    eager = sp.wrap(randomised(Small()), method="branched", seed=2).train()
    net, counter = counted(copy.deepcopy(eager))
    labels = torch.randint(10, (16,))
    for _ in range(12):
        x = torch.randn(16, 3, 16, 16)
        left, right = (sp.loss(n(x), labels) for n in (eager, net))
        torch.testing.assert_close(left, right)
        left.backward()
        right.backward()
    # The first stage is before all points.
    assert counter.frame_count <= 7
    for left, right in zip(eager.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-3, atol=1e-4)


def test_blocks_of_one_form_are_compiled_once():
    net = Small()
    net.blocks.extend([Block(16, 16) for _ in range(5)])
    # Another shape, and what is frozen, is another form.
    net.blocks.extend([Block(16, 16).requires_grad_(False), Block(16, 8), Block(8, 16)])
    eager = sp.wrap(randomised(net)).train()
    compiled, counter = counted(copy.deepcopy(eager))
    x = torch.randn(2, 3, 32, 32)
    for instance in eager.instances:
        left, right = (n.instance(instance)(x) for n in (eager, compiled))
        torch.testing.assert_close(left, right)
        left.sum().backward()
        right.sum().backward()
    assert len(net.blocks) + 1 == 12 and counter.frame_count == 7
    for left, right in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-4, atol=1e-4)


def test_training_evaluating_and_other_sizes_stay_far_from_the_limit():
    net = sp.wrap(randomised(Small()), ratios=(0.5, 0.6, 0.75)).train()
    compiled, counter = counted(net)
    sp.calibrate(net, [torch.randn(4, 3, 16, 16)])
    for _ in range(3):
        run_all(net.train(), compiled, sizes=((16, 16), (17, 15), (21, 40)))
        sp.calibrate(net, [torch.randn(4, 3, 16, 16)])
        net.eval()
        with torch.no_grad():
            for instance in net.instances:
                net.instance(instance)(torch.randn(4, 3, 16, 16))
    # Four stages in two modes; another size of the images is one more for the first.
    assert counter.frame_count <= 12


def test_compiled_is_eager():
    torch.manual_seed(0)
    eager = sp.wrap(randomised(Small())).train()
    compiled = sp.wrap(randomised(Small()))
    compiled.load_state_dict(eager.state_dict())
    compiled.train().compile(backend="aot_eager")
    batch = [torch.randn(4, 3, 16, 16)]
    for _ in range(10):
        x = torch.randn(4, 3, 16, 16)
        left, right = eager(x), compiled(x)
        assert eager.current == compiled.current
        torch.testing.assert_close(left, right)
        left.sum().backward()
        right.sum().backward()
    for left, right in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(left.grad, right.grad, rtol=1e-4, atol=1e-5)
    for left, right in zip(eager.buffers(), compiled.buffers(), strict=True):
        torch.testing.assert_close(left, right)
    for net in (eager, compiled):
        sp.calibrate(net, batch)
    for instance in eager.instances:
        with torch.no_grad():
            outputs = [n.eval().instance(instance)(batch[0]) for n in (eager, compiled)]
        torch.testing.assert_close(*outputs)


@pytest.mark.slow
def test_resnet50_compiles_in_three_times_the_plain_networks_time():
    """With inductor: run it with `-m slow -s`; it takes some ten minutes on an idle core."""
    import torch._inductor.config as inductor

    models = pytest.importorskip("torchvision.models")
    # No map of any instance is a single cell: those are compiled apart.
    x = torch.randn(2, 3, 96, 96)
    # All in this process, so that its CPU time is all there is, whatever else the machine
    # does; and without the caches on disk, which earlier runs have filled.
    alone_here = inductor.patch(force_disable_caches=True, compile_threads=1)
    limit = torch._dynamo.config.patch(fail_on_recompile_limit_hit=True)
    with alone_here, limit:
        # What the compiler does once counts for neither.
        torch.compile(Small().train())(x).sum().backward()
        torch.compiler.reset()
        plain = torch.compile(models.resnet50().train())
        alone = cpu_seconds(lambda: plain(x).sum().backward())
        torch.compiler.reset()
        net = sp.wrap(models.resnet50()).train()
        counter = torch._dynamo.testing.CompileCounterWithBackend("inductor")
        net.compile(backend=counter)
        ours = cpu_seconds(lambda: [net.instance(i)(x).sum().backward() for i in net.instances])
    graphs = counter.frame_count
    print(f"plain {alone:.0f} s, 35 instances {ours:.0f} s, {ours / alone:.2f}, {graphs} graphs")
    assert len(net.instances) == 35
    # One a form of blocks: the first of each of four groups and those behind it, and the
    # parts before and behind them all. The stem's pool is none.
    assert graphs == 10
    assert ours <= 3 * alone, (ours, alone)


def cpu_seconds(function):
    """CPU time of this process and of the compilers that it started."""

    def now():
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(usage.ru_utime + usage.ru_stime for usage in used)

    started = now()
    function()
    return now() - started
