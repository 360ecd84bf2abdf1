"""How things look in a terminal."""

from app.cli import show


def test_control_characters_of_others_never_reach_the_terminal() -> None:
    assert show.clean("a\x1b[2Jb\x07\n") == "a [2Jb \n"
    assert show.clean("two\nlines\r", one_line=True) == "two lines"


def test_a_sparkline_falls_with_its_values() -> None:
    assert show.sparkline([8, 7, 6, 5, 4, 3, 2, 1], 8) == "█▇▆▅▄▃▂▁"
    assert show.sparkline([2.0, 2.0], 8) == "▁▁"
    assert show.sparkline([], 8) == ""
    assert len(show.sparkline([float(n) for n in range(1000)], 32)) == 32


def test_durations_and_sizes_read_well() -> None:
    assert show.duration(65) == "1:05"
    assert show.duration(3_725) == "1:02:05"
    assert show.duration(-3) == "0:00"
    assert show.size("62600000") == "62.6 MB"
    assert show.size(None) == "-"
    assert show.number("33816") == "33,816"
    assert show.number(0.0005) == "0.0005"
