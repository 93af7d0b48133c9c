"""Errors. Every message says what to do."""


class WrapError(ValueError):
    """A network that stochastic downsampling cannot be added to."""


class EngineError(WrapError):
    """A network that trains, but that sdpoint's engine cannot run."""


class InstanceError(ValueError):
    """An instance that does not exist, or that cannot process its input."""


class StatisticsError(RuntimeError):
    """Batch-norm statistics that are missing or out of date."""


class ModelFileError(ValueError):
    """A model file that cannot be written or read."""
