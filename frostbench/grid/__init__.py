"""The grid upstream x task x seed: rows -> cells -> needs -> waves -> jobs, each planned once."""
