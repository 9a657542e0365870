"""Exact splitting of any CNN: receptive fields, plans, pieces and their merge. And
views, which are not exact."""

from coded_jax.splitting.flattening import platform_specialised as platform_specialised
from coded_jax.splitting.plan import cut as cut
from coded_jax.splitting.plan import cut_offsets as cut_offsets
from coded_jax.splitting.plan import make_plan as make_plan
from coded_jax.splitting.plan import merge as merge
from coded_jax.splitting.plan import shares as shares
from coded_jax.splitting.plan import split as split
from coded_jax.types import AxisPlan as AxisPlan
from coded_jax.types import Plan as Plan
from coded_jax.types import SplitPlan as SplitPlan
from coded_jax.types import ViewPlan as ViewPlan
