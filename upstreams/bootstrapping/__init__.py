"""Trained to agree with a teacher: a slow copy of the network, the network itself, or another one."""
