"""What learns: the weighted sum of layers and one light head a task. Underscored files are machinery."""
