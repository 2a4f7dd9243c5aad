"""Every part that can be swapped: one folder a kind, one file a plugin."""
