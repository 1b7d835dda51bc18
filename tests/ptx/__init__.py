"""An interpreter of PTX in NumPy: compiled GPU code, executed on CPU tensors with every access checked."""

from .errors import Diverged, Endless, Misaligned, OutOfBounds, PTXError, Unsupported
from .machine import Report, run
from .races import Race

__all__ = ["Diverged", "Endless", "Misaligned", "OutOfBounds", "PTXError", "Race", "Report", "Unsupported", "run"]
