"""Bringing up servers and nodes: keys, folders, processes."""
