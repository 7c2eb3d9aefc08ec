"""The map of the field: one folder a family, one file an upstream. Underscored files are machinery."""
