"""Packaged text templates."""
