"""Trained to make two views of a recording alike, with terms that keep recordings apart and dimensions in use."""
