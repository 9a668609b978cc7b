"""Probes, and their verdict."""
