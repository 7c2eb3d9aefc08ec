"""Kinds of labels: one file a kind, each turns what a row holds into what a head is trained on, and back."""
