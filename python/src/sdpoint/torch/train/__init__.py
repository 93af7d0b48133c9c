"""The training program: `python -m sdpoint.torch.train --help`."""
