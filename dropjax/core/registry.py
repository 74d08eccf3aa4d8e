"""Selection by name, discovery by file: `dropjax/schemes/foo.py` makes the name foo exist."""

import dataclasses
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Registry(Generic[T]):
    """Classes by name. A class in a file of the package has the name of the file.

    Args:
      package: where the files are. A file that defines no subclass of `base` adds no name.
      base: the class that all of them derive from.
      noun: the word for one of them in error messages.
      functions: packages whose functions users may mistake for a name: those in their `__all__`.
      parts: files of the package with building blocks for the others. They add no names.
      flag: the flag of experiments that takes such a text and lists the arguments; "" if there is
        none.
      given: fields of the classes that the program sets, and a text may not.
    """

    def __init__(
        self,
        package: str,
        base: type[T],
        noun: str,
        functions: Sequence[str] = (),
        parts: Sequence[str] = (),
        flag: str = "",
        given: Sequence[str] = (),
    ) -> None:
        self.base, self.noun, self.flag = base, noun, flag
        self._package, self._given = package, frozenset(given)
        self._functions, self._parts = functions, frozenset(parts)
        self._added: dict[str, type[T]] = {}

    def names(self) -> list[str]:
        """All names, built in and added, in alphabetical order."""
        path = importlib.import_module(self._package).__path__
        files = [m.name for m in pkgutil.iter_modules(path)]
        built_in = [f for f in files if f not in self._parts and self._defined_in(f)]
        return sorted([*built_in, *self._added])

    def add(self, name: str, cls: type[T]) -> None:
        """Makes `cls` known as `name`.

        Raises:
          ValueError: the name is taken, or could not be written in a text.
          TypeError: `cls` is not of the sort.
        """
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise TypeError(f"{cls!r} is not a {self.noun}: {self.base.__name__} is its base")
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"a name must be an identifier such as my_{self.noun}, got {name!r}")
        if name in self.names():
            raise ValueError(f"there is already a {self.noun} named {name!r}")
        self._added[name] = cls

    def find(self, name: str) -> type[T]:
        """The class of that name, or `module:Class` from anyone's module.

        Raises:
          ValueError: there is none; the message has the nearest name, or where a function of that
            name is, and the list.
        """
        if ":" in name:
            return self._imported(name)
        names = self.names()
        if name not in names:
            hint = self._hint(name, names)
            raise ValueError(f"no {self.noun} {name!r}{hint} There are: {', '.join(names)}")
        return self._added.get(name) or self._defined_in(name)  # type: ignore[return-value]

    def fields(self, cls: type[T]) -> dict[str, "dataclasses.Field[Any]"]:
        """The fields of a class that a text may set, by name."""
        fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
        return {f.name: f for f in fields if f.init and f.repr and f.name not in self._given}

    def name_of(self, cls: type[T]) -> str:
        """The name that `find` takes back to `cls`."""
        for name, added in self._added.items():
            if added is cls:
                return name
        package, _, stem = cls.__module__.rpartition(".")
        if package == self._package and stem not in self._parts:
            return stem
        return f"{cls.__module__}:{cls.__qualname__}"

    def _hint(self, name: str, names: list[str]) -> str:
        """What the user may have meant, for the middle of an error message."""
        functions = self._public_functions()
        if name in functions:
            path, stem = functions[name]
            if stem in names:
                return f": the {self.noun} of {path} is {stem}."
            return f": {path} is a function without a {self.noun}, for code of your own."
        of_names = [function for function, (_, stem) in functions.items() if stem in names]
        near = difflib.get_close_matches(name.lower(), [*names, *of_names], n=1, cutoff=0.5)
        if not near:
            return "."
        if near[0] in names:
            return f"; did you mean {near[0]}?"
        path, stem = functions[near[0]]
        return f"; did you mean {stem}, the {self.noun} of {path}?"

    def _public_functions(self) -> dict[str, tuple[str, str]]:
        """Functions by name, each with its path and the stem of the file that defines it."""
        functions = {}
        for package in self._functions:
            module = importlib.import_module(package)
            for name in module.__all__:
                function = getattr(module, name)
                if inspect.isfunction(function):
                    folder, _, stem = function.__module__.rpartition(".")
                    path = f"{package}.{name}"
                    functions.setdefault(name, (path, stem if folder == self._package else ""))
        return functions

    def _defined_in(self, stem: str) -> type[T] | None:
        module = importlib.import_module(f"{self._package}.{stem}")
        classes: list[Any] = [
            c
            for c in vars(module).values()
            if isinstance(c, type) and issubclass(c, self.base) and c.__module__ == module.__name__
            if not c.__name__.startswith("_")
        ]
        if len(classes) > 1:
            raise TypeError(f"{module.__name__} defines more than one {self.noun}: {classes}")
        return classes[0] if classes else None

    def _imported(self, name: str) -> type[T]:
        module_name, _, class_name = name.partition(":")
        try:
            cls = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"cannot import the {self.noun} {name!r}: {error}") from error
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise ValueError(f"{name!r} is not a {self.noun}: {self.base.__name__} is its base")
        return cls
