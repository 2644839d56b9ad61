"""Claims about many messages of one kind in a line."""

from instructvla.training.data.message_groups import few, grouped, ranges, without_numbers


def test_of_many_numbers_the_first_are_told_and_how_many_more():
    assert few([4]) == "4" and few([0, 4, 7]) == "0, 4, 7"
    assert few(range(40)) == "0, 1, 2 and 37 more"
    assert few(range(12_003)) == "0, 1, 2 and 12,000 more"


def test_numbers_in_a_row_are_a_range():
    assert ranges([5]) == "5" and ranges([1, 2]) == "1–2" and ranges([7, 1, 2, 3, 9]) == "1–3, 7, 9"
    assert ranges([number for number in range(100) if number not in (0, 25)]) == "1–24, 26–99"
    assert ranges(range(0, 4000, 2)) == "0, 2, 4, 6, 8, 10 and 1,994 more"


def test_messages_of_one_kind_are_the_same_without_their_numbers():
    assert without_numbers("record 12 of 300 ends") == without_numbers("record 7 of 9 ends") == "record # of # ends"
    assert without_numbers("x changes by 1e-05; usual is -0.3") == without_numbers("x changes by 12; usual is 1,000")


def test_groups_keep_the_order_of_their_first():
    assert grouped(["b1", "a1", "b2", "a2"], key=lambda item: item[0]) == [["b1", "b2"], ["a1", "a2"]]
