"""Capacity and cost of a tenant before it exists: memory, cores, hours and money from its size.

Reading order: ``workload`` (the input), ``degrees``, ``coefficients`` (the measured table),
``steps`` (the cost of each step), ``online`` (the serving fleet), ``plan`` (machines and money).
"""
