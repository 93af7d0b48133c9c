"""`python -m sdpoint.torch.train`, alone or under torchrun."""

from __future__ import annotations

import sys

from ..errors import EngineError, WrapError
from .distributed import join
from .options import parse
from .run import open_run


def main(arguments: list[str] | None = None) -> int:
    """Trains, calibrates and evaluates; returns the exit code."""
    options = parse(arguments)
    world = run = None
    try:
        world = join(options.device)
        run, resumed = open_run(options, world)
        if world.first:
            share = f", resuming at step {run.step}" if resumed else ""
            steps = f"{run.recipe.epochs} epochs of {run.steps_per_epoch} steps"
            where = f"{world.size} x {world.device.type}"
            count = len(run.net.instances)
            print(f"{run.options.arch}: {count} instances, {steps} on {where}{share}", flush=True)
        run.train()
        rows = run.finish()
        if world.first:
            for row in rows:
                print(f"{row.instance:12} {row.share:7.1%} of the MACs  {row.top1:7.2%}")
            print(f"the run is in {run.folder}")
    except (WrapError, EngineError, ValueError, OSError, FloatingPointError) as error:
        print(f"error: {_told(error)}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        where = "" if run is None else f": --resume {run.folder} continues from its last checkpoint"
        print(f"\ninterrupted{where}", file=sys.stderr, flush=True)
        return 130
    finally:
        if world is not None:
            world.close()
    return 0


def _told(error: Exception) -> str:
    """An error's message; from a loader's process it comes with a traceback before it."""
    text = str(error)
    if text.startswith("Caught "):
        text = text.strip().splitlines()[-1].partition(": ")[2]
    return text


if __name__ == "__main__":
    sys.exit(main())
