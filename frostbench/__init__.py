"""Frostbench: how good are the frozen representations of a speech encoder?"""
