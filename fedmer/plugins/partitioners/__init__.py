"""Splits of a corpus over clients."""
