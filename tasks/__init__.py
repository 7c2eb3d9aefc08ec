"""What is measured: a task is data (label, head, metric, recipe); the machinery around it is underscored."""
