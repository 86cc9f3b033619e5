"""Bias auditing; see README.md."""

from governed_serving.auditor.cells import Cells, Layout
from governed_serving.auditor.metrics import Comparison, Confusion, compare
from governed_serving.auditor.verdict import judge

__all__ = ["Cells", "Comparison", "Confusion", "Layout", "compare", "judge"]
