"""Primitives that the schemes share. Imports jax alone."""
