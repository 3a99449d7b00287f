"""What people see of long work."""

from rarefill.console import _Rich


def test_bars_show_names_that_look_like_markup_as_they_are(capsys) -> None:
    with _Rich().bar("painting [/foo]", 2, "[bold]objects") as bar:
        bar.advance(2, "last: [/foo] x")
    shown = capsys.readouterr().err
    assert "painting [/foo]" in shown
    assert "[bold]objects" in shown.replace("\n", "")
