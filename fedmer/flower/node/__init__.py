"""A node's side of a federation on Flower."""
