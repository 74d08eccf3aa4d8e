"""Published results, reproduced: `python -m experiments.papers.NAME`, a module for each paper.

Each module prints a line for each target: the published figure, the tolerance, which was fixed
before the first run, the result, and PASS or FAIL. The exit status is 1 if a target failed.
"""
