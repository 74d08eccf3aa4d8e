"""Published results made again: `python -m experiments.papers.NAME`, a module for each paper.

Each prints a line for each target: the published figure, the tolerance that was fixed before the
first run, what was found, and PASS or FAIL. The exit status is 1 if any failed.
"""
