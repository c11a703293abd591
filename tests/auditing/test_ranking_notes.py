from rlaif.auditing.ranking_notes import unconnected_note


def test_each_kind_of_gap_is_named():
    assert unconnected_note([["a"], ["b"]], is_joined=False).startswith("nobody compared these with each other, so how")
    assert "'a'; 'b'; so each policy" in unconnected_note([["a"], ["b"]], is_joined=False)
    assert unconnected_note([["a"], ["b"]], is_joined=True).startswith("'a' never lost to 'b': ")
    assert unconnected_note([["a", "b"]], is_joined=True).startswith("ties and wins alone do not tell")


def test_many_names_are_cut_and_strange_ones_quoted():
    note = unconnected_note([["x\n"], [f"p{number}" for number in range(9)]], is_joined=True)
    assert r"'x\n' never lost to 'p0', 'p1', 'p2', 'p3', 'p4', 'p5' and 3 more:" in note
