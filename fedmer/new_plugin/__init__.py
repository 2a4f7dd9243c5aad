"""Packages of new plugins, written out of templates."""
