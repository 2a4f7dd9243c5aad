"""What protects what clients send."""
