"""Ablations: grids of seeded runs, what they cost, how they are run, and what they say."""
