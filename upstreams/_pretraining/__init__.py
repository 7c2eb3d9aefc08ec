"""Training upstreams from scratch: contract, data, trainer, targets, checkpoints."""
