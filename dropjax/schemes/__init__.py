"""Dropout schemes, one to a file. The file's name is the scheme's name and the flag's value."""

from dropjax.core.scheme import SCHEMES, Chain, Learned, Rate, Scheme, scheme
from dropjax.core.spec import parse

names = SCHEMES.names
"""The names of all schemes."""

register = SCHEMES.add
"""`register(name, cls)` makes a scheme of yours known by a name of its own."""

__all__ = ["Chain", "Learned", "Rate", "Scheme", "names", "parse", "register", "scheme"]
