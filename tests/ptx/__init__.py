"""An interpreter of PTX in NumPy: compiled GPU code, executed on CPU tensors with every access checked."""

from .errors import Diverged, Endless, InFlight, Misaligned, Misused, OutOfBounds, PTXError, Unfenced, Unsupported
from .machine import Report, run
from .races import Race

__all__ = [
    "Diverged",
    "Endless",
    "InFlight",
    "Misaligned",
    "Misused",
    "OutOfBounds",
    "PTXError",
    "Race",
    "Report",
    "Unfenced",
    "Unsupported",
    "run",
]
