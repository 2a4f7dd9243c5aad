"""Clients elsewhere, by Flower: its wire, its simulation, its deployment."""
