"""Results of other benchmark tools, read as measurements."""

from mfbench.results.foreign.registry import TOOLS, parse
from mfbench.results.foreign.results import ToolResults

__all__ = ["TOOLS", "ToolResults", "parse"]
