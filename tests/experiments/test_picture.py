from experiments.picture import in_lines

TITLE = 'a.npz, bernoulli(rate=0.2,at="input$")|bernoulli(rate=0.5,at="hidden$"), seed 0'


def test_a_text_is_broken_where_an_argument_ends():
    assert in_lines("a(b=1,c=2)|d(e=3)", 8) == "a(b=1,\nc=2)|\nd(e=3)"
    assert in_lines("none") == "none" and in_lines("$x$") == "$x$" and in_lines("") == ""
    assert in_lines(TITLE, 1000) == TITLE


def test_nothing_is_lost_but_the_end():
    assert in_lines("x y " * 100, 10, most=2) == "x y x y x\ny x y ..."
    assert in_lines("x y " * 5, 10, most=2) == "x y x y x\ny x y x y"


def test_what_no_font_has_is_escaped():
    assert in_lines("a\nb\udcff\0", 9) == "a\\nb\\udcf\nf\\x00"
