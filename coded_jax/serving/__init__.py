"""First k of n: responses as soon as enough workers have theirs, see `serve`."""

from coded_jax.serving.config import ServeConfig as ServeConfig
from coded_jax.serving.engine import Closed as Closed
from coded_jax.serving.engine import NotEnoughResults as NotEnoughResults
from coded_jax.serving.engine import WrongResults as WrongResults
from coded_jax.serving.faults import Faults as Faults
from coded_jax.serving.response import Response as Response
from coded_jax.serving.service import Overloaded as Overloaded
from coded_jax.serving.service import Service as Service
from coded_jax.serving.start import ENGINES as ENGINES
from coded_jax.serving.start import serve as serve
