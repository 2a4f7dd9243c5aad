"""The server's side of a federation on Flower."""
