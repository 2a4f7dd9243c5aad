"""What is typed: parse, call, print."""
