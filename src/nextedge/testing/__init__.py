"""Shipped with the package: slow, obvious oracles and contract checks for implementations."""
