"""A synthetic tenant: a social network and a shop that behave like real ones.

``generate_tenant`` writes the six input tables; ``SyntheticConfig`` says how many and how
lifelike. Reading order: ``tenant``, ``people``, ``communities``, ``growth``, ``connections``,
``catalogue``, ``choices``, ``interactions``.
"""

from nextedge.data.synthetic.config import SyntheticConfig
from nextedge.data.synthetic.tenant import generate_tenant

__all__ = ["SyntheticConfig", "generate_tenant"]
