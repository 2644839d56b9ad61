"""Lines of the doctor: one each, whatever a message holds."""

from instructvla.evaluation.doctor_lines import Line, counted, finding, named


def test_a_finding_is_one_line_with_its_remedy():
    assert str(finding("fit", "two\nlines", "do\nthis")) == "FINDING  fit: two lines -> do this"
    assert str(Line("ok", "files", "there")) == "ok       files: there"


def test_long_lists_are_cut_and_counted():
    assert named([f"t{number}" for number in range(312)]) == "t0, t1, t2, t3 and 308 more"
    assert named(["a", "b"]) == "a, b"
    assert [counted(number, "tensor") for number in (1, 2)] == ["1 tensor", "2 tensors"]
