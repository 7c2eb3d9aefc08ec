"""Trained to generate speech features: future frames, or masked ones."""
