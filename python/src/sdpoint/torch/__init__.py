"""Train a network whose cost is chosen at inference, in PyTorch.

weights = torchvision.models.ResNet50_Weights.DEFAULT
net = sdpoint.torch.wrap(torchvision.models.resnet50(weights=weights), ratios=(0.5, 0.75))
for x, y in loader:  # each step draws an instance
    loss = F.cross_entropy(net(x), y)
    ...
sdpoint.torch.calibrate(net, loader, images=5000)
sdpoint.torch.save(net, "model.safetensors", preprocessing=weights.transforms())
"""

from .adapt import Adapted, adapt
from .branches import Branch, Branched, Branching, loss
from .calibrate import calibrate
from .draw import Draws
from .errors import EngineError, InstanceError, ModelFileError, StatisticsError, WrapError
from .instance import Instance
from .measure import Accuracy, Timing
from .model_file import load, save
from .network import Adjustable, wrap
from .points import Point

__all__ = [
    "Accuracy",
    "Adapted",
    "Adjustable",
    "Branch",
    "Branched",
    "Branching",
    "Draws",
    "EngineError",
    "Instance",
    "InstanceError",
    "ModelFileError",
    "Point",
    "StatisticsError",
    "Timing",
    "WrapError",
    "adapt",
    "calibrate",
    "load",
    "loss",
    "save",
    "wrap",
]
