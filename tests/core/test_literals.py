"""Text to calls and back, and nothing in the text ever runs."""

from typing import Annotated, Literal

import pytest

from dropjax.core.literals import check_type, format_call, parse_call, split

VALUES = [
    *(0, -3, 10**20, 0.0, -0.5, 0.1, 1e-300, 1e300, True, False, None),
    *("", "a", "it's", 'say "so"', "both ' and \"", "a\\b", "\\", "\\d+$", '\\"', "tab\tline\n"),
    *("(", ")", "|", "a|b,c=(1", "é", "\u2028", "\x7f", "🎲"),
    *((), (1,), (1, 2), (0.5, "a", None), ((1,), (), ("b|",))),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_what_is_formatted_is_parsed_back(value):
    text = format_call("name", {"x": value, "y_2": (value, value)})
    name, arguments = parse_call(text)
    assert name == "name"
    assert repr(arguments) == repr({"x": value, "y_2": (value, value)})
    assert split(f"{text}|{text}", "|") == [text, text]


def test_the_form():
    assert format_call("name", {}) == "name"
    call = format_call("name", {"rate": 0.3, "at": "input", "widths": (512, 256), "one": (1,)})
    assert call == 'name(rate=0.3,at="input",widths=(512,256),one=(1,))'


@pytest.mark.parametrize(
    "text, name, arguments",
    [
        ("name", "name", {}),
        ("name()", "name", {}),
        ("  name ( x = 1 , y = 'a' , ) ", "name", {"x": 1, "y": "a"}),
        ("package.module:Class", "package.module:Class", {}),
        ("package.module:Outer.Inner(x=-1)", "package.module:Outer.Inner", {"x": -1}),
        ("name(x=+1.5e-3,y=None)", "name", {"x": 0.0015, "y": None}),
        ("name(x=(1,(2,)),y=True)", "name", {"x": (1, (2,)), "y": True}),
        ("name(x=')|(')", "name", {"x": ")|("}),
        ("print(end='')", "print", {"end": ""}),  # a name alone calls nothing
    ],
)
def test_parse_call(text, name, arguments):
    assert parse_call(text) == (name, arguments)


MALFORMED = [
    *("", " ", "()", "1a", "a b", "a-b", "a)", ".a", "a.", ":a", "a:", "a:b:c", "a..b", "a/b"),
    *("a(", "a((", "a(x", "a(x=", "a(x=)", "a(x=1", "a(x=1))", "a(,)", "a(x=1 y=2)", "a(x=1,,y=2)"),
    *("a(x=1)b", "a(x=1);b", "a(x=1),2", "a(x=1)(y=2)", "a(x=1).b", "a(x=1)+1", "a(x=1)[0]"),
    *("a(x=1) if 1 else 2", "a(x='open)", "a(1)", "a(0.3,x=1)", "a(x:=1)", "a(*x)", "a(**x)"),
    *('a(**{"x":1})', "a(x=1,x=2)", "a(None=1)", "a(x=y)", "a(x=nan)", "a(x=1+1)", "a(x=2**9)"),
    *("a(x=not True)", "a(x=~1)", "a(x=1<2)", "a(x=(1,y))", 'a(x=f"{1}")', "a(x={**{}})"),
    *("a(x=" + "(" * 300 + ")" * 300 + ")", "a(x=" + "9" * 5000 + ")"),
    # What Python would overlook: a value that cannot be built, and text after the call.
    *("a(x={[]:1})", "a(x=1)#b", "a(x=1)|b"),
]


MALICIOUS = [
    "a(x=print('ran'))",
    "a(x=__import__('os').system('echo ran'))",
    "a(x=open('dropjax-ran','w'))",
    "a(x=[print('ran') for _ in (1,)])",
    "a(x=(lambda: print('ran'))())",
    "a(x=f\"{print('ran')}\")",
    "a(x={print('ran'): 1})",
    "a(*[print('ran')])",
    "a(**{'x': print('ran')})",
    "a(x=(y := print('ran')))",
    "a(x=().__class__.__bases__[0].__subclasses__())",
    "a(x=1)(print('ran'))",
    "print('ran')",
    "eval(x=print('ran'))",
    "__import__('os')",
]


@pytest.mark.parametrize("text", MALFORMED + MALICIOUS, ids=lambda text: repr(text)[:30])
def test_text_that_is_no_call_is_refused_and_shown_and_never_run(text, capfd):
    with pytest.raises(ValueError) as error:
        parse_call(text)
    assert repr(text) in str(error.value)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    "text, parts",
    [
        ("", [""]),
        ("a", ["a"]),
        (" a | b ", ["a", "b"]),
        ("a||b|", ["a", "", "b", ""]),
        ("a(x='|')|b", ["a(x='|')", "b"]),
        ('a(x="|")|b', ['a(x="|")', "b"]),
        ("a(x='\"|')|b", ["a(x='\"|')", "b"]),
        ('a(x="it\'s|")|b', ['a(x="it\'s|")', "b"]),
        (r'a(x="\"|")|b', [r'a(x="\"|")', "b"]),
        (r'a(x="\\")|b', [r'a(x="\\")', "b"]),
        ("a(x=(1|2))|b", ["a(x=(1|2))", "b"]),
        ("[a|b]|{c|d}", ["[a|b]", "{c|d}"]),
        ("a(x=')')|b", ["a(x=')')", "b"]),
        ("a(x='(')|b", ["a(x='(')", "b"]),
    ],
)
def test_split_leaves_brackets_and_quotes_alone(text, parts):
    assert split(text, "|") == parts
    assert split("a=(1,2),b='x,y', c", ",") == ["a=(1,2)", "b='x,y'", "c"]


@pytest.mark.parametrize("text", ["a(", "a(x=[1)", "a|b(x=(1)", "'a|b", 'a(x="|b', r'a(x="\")'])
def test_split_refuses_what_does_not_close(text):
    with pytest.raises(ValueError, match="does not close its") as error:
        split(text, "|")
    assert repr(text) in str(error.value)


Choice = Literal["train", "test"]
Rate = Annotated[float, "rate"]


@pytest.mark.parametrize(
    "annotation, fits, others",
    [
        (float, [0.5, 1, -2.0], [True, "1", None, (1.0,), 1j]),
        (Rate, [0.5, 0], [False, "0.5", None]),
        (int, [3, 0, -1], [True, 3.0, "3", None]),
        (bool, [True, False], [0, 1, "True", None]),
        (str, ["", "a"], [1, None, ("a",), b"a"]),
        (None, [None], [0, False, ""]),
        (Choice, ["train", "test"], ["Train", "", None, 0, ("train",)]),
        (tuple[int, ...], [(), (1,), (1, 2, 3)], [1, (1.0,), ("a",), (True,), [1], None]),
        (tuple[int, str], [(1, "a")], [(1,), (1, 2), ("a", 1), (1, "a", 2), ()]),
        (int | None, [1, None], [1.0, "a"]),
        (float | tuple[float, ...], [1, (0.5, 1)], ["a", (0.5, "a")]),
        (dict, [{}, 1, "anything that it does not know"], []),
    ],
    ids=str,
)
def test_check_type(annotation, fits, others):
    for value in fits:
        check_type(value, annotation, "it")
    for value in others:
        with pytest.raises(TypeError, match=r"^it must be ") as error:
            check_type(value, annotation, "it")
        assert str(error.value).endswith(f", got {value!r}")


@pytest.mark.parametrize(
    "annotation, said",
    [
        (Rate, "a number"),
        (int | None, "an integer or None"),
        (bool, "True or False"),
        (str, "a string"),
        (Choice, "one of 'train', 'test'"),
        (tuple[int, ...], r"a tuple of integers, such as \(512,256\)"),
    ],
)
def test_the_message_says_what_fits(annotation, said):
    with pytest.raises(TypeError, match=f"^it must be {said}, got 1j$"):
        check_type(1j, annotation, "it")
