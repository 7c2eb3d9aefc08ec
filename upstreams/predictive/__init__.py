"""Upstreams that predict clusters of masked frames."""
