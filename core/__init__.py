"""Bottom layer: what two or more of the other folders need. Imports no other folder of the project."""
