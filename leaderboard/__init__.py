"""Records in, tables out. Sees nothing of the project but `core`."""
