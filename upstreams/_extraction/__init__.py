"""Manifest rows + upstream -> feature cache."""
