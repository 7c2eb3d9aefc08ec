"""No parameters: the floor to beat."""
