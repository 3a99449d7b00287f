"""Where, how large, what shape: layouts for rare objects on the dataset's own images."""

from rarefill.layouts.planfile import categories_in, read_plan, write_plan
from rarefill.layouts.planner import Plan, Planner, Shortfall

__all__ = ["Plan", "Planner", "Shortfall", "categories_in", "read_plan", "write_plan"]
