"""Capacity and cost before a tenant is there: from its size to memory, cores, hours and money.

Reading order: ``workload`` (what is asked), ``degrees``, ``laws`` (fitted curves),
``coefficients`` (those measured), ``drivers`` (what laws grow with), ``offline`` and ``online`` (what
each stage does how often), ``servers`` and ``plan`` (machines, hours, money).
"""
