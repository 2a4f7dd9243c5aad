"""Aggregation rules: what server and clients do beyond local training."""
