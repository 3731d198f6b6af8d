"""What this library raises and warns on purpose."""

__all__ = [
    "CheckpointError",
    "DataNotFoundError",
    "FallbackWarning",
    "LowlandError",
    "MissingExtraError",
    "NoEffectWarning",
    "OutcomeError",
    "UnsupportedModelError",
]


class LowlandError(Exception):
    """Base of every error this library raises on purpose."""


class UnsupportedModelError(LowlandError, TypeError):
    """The model has a layer or a property that the method cannot treat."""


class CheckpointError(LowlandError, ValueError):
    """A checkpoint cannot be read, or does not fit the model."""


class DataNotFoundError(LowlandError, FileNotFoundError):
    """A data set lies in none of the places where it was looked for."""


class MissingExtraError(LowlandError, ImportError):
    """An optional package is needed for what was asked."""


class OutcomeError(LowlandError, RuntimeError):
    """Raised by ``result.raise_for_status()`` only: a run ended without what it was for."""


class NoEffectWarning(UserWarning):
    """A method ran but changed nothing."""


class FallbackWarning(UserWarning):
    """A slower or different way was taken, and why."""
