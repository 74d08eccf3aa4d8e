"""Functions that no flag stands for: they draw nothing, change sizes, or need what a site has not.

They are called by `dropjax.max_dropout` and so on. A function with a flag is in its scheme's file.
"""
