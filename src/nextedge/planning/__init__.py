"""Capacity and cost before a tenant is there: from its size to memory, cores, hours and money.

Reading order: ``workload`` (what is asked), ``degrees``, ``laws`` (fitted curves),
``coefficients`` (those measured), ``offline`` and ``online`` (what each stage does how often),
``plan`` (machines, hours, money).
"""
