"""Tries the laws of schemes on one of your own, and says in words which of them it breaks.

  python -m scripts.check_scheme mymodule:Pairs
  python -m scripts.check_scheme 'mymodule:Pairs(rate=0.3)' --shared

The argument is a text that `--dropout` takes. The laws of `dropjax.core.laws` are tried at a site
of every kind that the scheme can act on, also with values of size 1 along an axis. `--shared` says
that all examples of a batch are meant to have the same noise. Each kind of site takes some seconds.
The exit status is 0 if all laws hold, and 1 if one does not.
"""

from experiments import program

if __name__ == "__main__":  # before what takes time is imported
    program.begin("check_scheme", "nothing was changed")

import itertools
from collections.abc import Iterator

from absl import app, flags

from dropjax.core import laws, literals
from dropjax.core.registry import Registry
from dropjax.core.scheme import SCHEMES, Scheme
from dropjax.core.spec import build


def report(text: str, *, shared: bool = False) -> Iterator[tuple[str, bool]]:
    """What is found, in paragraphs, each with whether all laws in it hold.

    Args:
      text: of a scheme, or of a chain, each link of which is looked at.
      shared: see `laws.check`.
    """
    for link in literals.split(text, "|"):
        try:
            scheme = build(SCHEMES, link)
        except Exception as error:  # whatever code of the user's raises
            yield _unmade(link, error, SCHEMES), False
            continue
        verdicts = laws.check(scheme, shared=shared)
        for where, there in itertools.groupby(verdicts, key=lambda verdict: verdict.where):
            yield _paragraph(f"{link} {where or 'as a scheme'}", list(there))


def _unmade(link: str, error: Exception, registry: Registry[Scheme]) -> str:
    advice = "See dropjax/README.md for how a scheme of your own is written."
    try:
        cls = registry.find(literals.parse_call(link)[0])
    except Exception:
        cls = None
    if cls is not None and "__dataclass_fields__" not in vars(cls):
        advice = "Decorate the class with dropjax.schemes.scheme."
    return f"{link} cannot be made: {type(error).__name__}: {error}\n  What to do: {advice}"


def _paragraph(title: str, verdicts: list[laws.Verdict]) -> tuple[str, bool]:
    broken = [verdict for verdict in verdicts if verdict.breach]
    count = len(verdicts)
    if not broken:
        return f"{title}: all {count} laws hold", True
    lines = [f"{title}: {count - len(broken)} of the {count} laws that were tried hold"]
    for verdict in broken:
        lines += [
            f"  Broken: {verdict.law.says}",
            f"    Found: {verdict.breach}.",
            f"    What to do: {verdict.law.advice}",
        ]
    return "\n".join(lines), False


def main(argv: list[str]) -> int:
    """Prints what is found; 0 if all laws hold, else 1."""
    if len(argv) != 2:
        raise app.UsageError(
            "give one scheme, such as mymodule:Pairs or 'mymodule:Pairs(rate=0.3)'"
        )
    failed = False
    for paragraph, holds in report(argv[1], shared=flags.FLAGS.shared):
        print(paragraph, flush=True)
        failed |= not holds
    print("A law is broken." if failed else "It obeys the laws.")
    return int(failed)


def _define_flags() -> None:
    """Not where this is imported: other modules may have flags of the same names."""
    flags.DEFINE_bool("shared", False, "All examples of a batch are meant to have the same noise.")


if __name__ == "__main__":
    _define_flags()
    program.launch("check_scheme", main)
