"""Upstreams that tell the true future or masked frame from distractors."""
