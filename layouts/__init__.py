"""Where, how large, what shape: layouts for rare objects on the dataset's own images."""

from rarefill.layouts.context import Context
from rarefill.layouts.coverage import Covered
from rarefill.layouts.planfile import goals_in, read_plan, redraws_in, write_plan
from rarefill.layouts.planner import Plan, Planner
from rarefill.layouts.redraws import Redraws
from rarefill.layouts.shortfalls import Shortfall

__all__ = [
    "Context",
    "Covered",
    "Plan",
    "Planner",
    "Redraws",
    "Shortfall",
    "goals_in",
    "read_plan",
    "redraws_in",
    "write_plan",
]
