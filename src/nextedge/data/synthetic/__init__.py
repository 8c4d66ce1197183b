"""A synthetic tenant that behaves like a social network with a catalogue."""

from nextedge.data.synthetic.tenant import SyntheticConfig, generate_tenant

__all__ = ["SyntheticConfig", "generate_tenant"]
