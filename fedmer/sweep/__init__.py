"""``fedmer sweep``: many runs from one W&B sweep file, on this machine and without a server."""
