"""Stores: key → packed value, in batches, behind one interface."""
