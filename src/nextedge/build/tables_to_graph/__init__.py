"""Rows of tables as arrays in dense positions."""
