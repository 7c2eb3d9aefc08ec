"""Upstreams that find the true future or masked frame among distractors."""
