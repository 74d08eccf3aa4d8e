"""No dropout: the baseline, a scheme like the others.

Source: none needed.
"""

from typing import ClassVar

from dropjax.core.scheme import Scheme, scheme


@scheme
class NoDropout(Scheme):
    """Acts nowhere."""

    at: ClassVar[str] = ""  # type: ignore[misc]
