import json

import pytest

from rlaif.errors import ConstitutionError
from rlaif.judge.constitutions import (
    Constitution,
    Principle,
    choose_principles,
    comparison_text,
    critique_request_of,
    load_constitution,
    parse_constitution,
    revision_requests,
)
from rlaif.policy_records import RevisionRequests

OURS = """
name: two-things
description: For tests.
principles:
  - id: brief
    text: The shorter answer is better.
    source: our own
    weight: 2
  - id: kind
    text: The kinder answer is better.
    critique_request: Say where the answer is unkind.
    revision_request: Make it kind.
"""

FOREIGN = {
    "cai-dict": {
        "rude1": {"prompt": "Say where the reply is rude.", "edit_request": "Make it polite."},
        "rude2": {"prompt": "Say where the reply is cold.", "edit_request": "Make it warm."},
    },
    "cai-list": [
        {"prompt": "Say where the reply is rude.", "edit_request": "Make it polite."},
        {"prompt": "Say where the reply is cold.", "edit_request": "Make it warm."},
    ],
    "hf": {
        "constitutions": [
            {"critic": "Say where the reply is rude.", "revision": "Make it polite."},
            {"critic": "Say where the reply is cold.", "revision": "Make it warm."},
        ],
        "system_chat": [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]],
    },
    "named": [
        {"name": "rude1", "critique_request": "Say where the reply is rude.", "revision_request": "Make it polite."},
        {"name": "rude2", "critique_request": "Say where the reply is cold.", "revision_request": "Make it warm."},
    ],
}


def write(folder, content, name="c.yaml"):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return str(path)


def test_our_format(tmp_path):
    constitution = load_constitution(write(tmp_path, OURS))
    assert constitution.name == "two-things"
    assert constitution.description == "For tests."
    assert constitution.principles == (
        Principle("brief", "The shorter answer is better.", source="our own", weight=2.0),
        Principle(
            "kind",
            "The kinder answer is better.",
            critique_request="Say where the answer is unkind.",
            revision_request="Make it kind.",
        ),
    )


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
@pytest.mark.parametrize("shape", FOREIGN)
def test_formats_in_the_wild_keep_their_requests_and_gain_a_comparison_principle(tmp_path, shape, suffix):
    constitution = load_constitution(write(tmp_path, FOREIGN[shape], f"wild{suffix}"))
    assert constitution.name == "wild"
    first, second = constitution.principles
    assert (first.critique_request, first.revision_request) == ("Say where the reply is rude.", "Make it polite.")
    assert (second.critique_request, second.revision_request) == ("Say where the reply is cold.", "Make it warm.")
    assert critique_request_of(second.text) == "Say where the reply is cold."
    named = shape in ("cai-dict", "named")
    assert [first.id, second.id] == (["rude1", "rude2"] if named else ["principle-1", "principle-2"])


def test_the_conversations_of_an_hf_file_are_kept(tmp_path):
    constitution = load_constitution(write(tmp_path, FOREIGN["hf"], "hf.json"))
    assert constitution.system_chat == ((("user", "Hi"), ("assistant", "Hello")),)


def test_a_plain_list_of_comparison_principles(tmp_path):
    constitution = load_constitution(write(tmp_path, ["\nChoose the kinder reply. ", "Choose the shorter reply."]))
    assert [each.text for each in constitution.principles] == ["Choose the kinder reply.", "Choose the shorter reply."]
    assert constitution.principles[0].critique_request is None


def test_the_frame_of_few_shot_dialogues_is_no_part_of_the_principle():
    framed = "\n\nCritique Request: Say where the reply is rude.\n\nCritique:"
    assert comparison_text(framed) == comparison_text("Say where the reply is rude.")
    assert critique_request_of("Choose the kinder reply.") is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"principles": [{"id": "a", "text": "x"}, {"id": "b"}]}, r"entry 2 \('b'\) has no field 'text'.*it has: id"),
        ({"principles": [{"id": "a", "text": ""}]}, r"entry 1 \('a'\), field 'text': is empty"),
        ({"principles": [{"id": "a", "text": 3}]}, r"entry 1 \('a'\), field 'text': is 3, expected a text"),
        ({"principles": [{"id": "a", "text": "x", "weigth": 1}]}, r"unknown field 'weigth' \(did you mean 'weight'"),
        ({"principles": [{"id": "a", "text": "x", "weight": 0}]}, r"field 'weight': is 0, expected a number above 0"),
        ({"principles": [{"id": "a", "text": "x", "weight": True}]}, r"field 'weight': is True"),
        ({"principles": [{"id": "a,b", "text": "x"}]}, r"field 'id': 'a,b' cannot be named in --principles"),
        ({"principles": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}, r"entry 2 has the id 'a' of entry 1"),
        ({"principles": []}, "holds no principles"),
        ({"principles": ["x", 3]}, "entry 2 is 3, expected a text or a mapping"),
        ({"name": "x", "principels": ["y"]}, r"has no field 'principles' \(nor 'constitutions'\); it has: name, princ"),
        ({"constitutions": [{"critic": "x"}]}, r"entry 1 has no field 'revision'; it has: critic"),
        ({"harmful0": {"edit_request": "x"}}, r"entry 1 \('harmful0'\) has no field 'prompt'; it has: edit_request"),
        ([{"name": "n", "critique_request": "x"}], r"entry 1 \('n'\) has no field 'revision_request'"),
        ({"constitutions": [{"critic": "x", "revision": "y"}], "system_chat": [3]}, "field 'system_chat': expected"),
        ("", "holds empty, expected a mapping"),
        ("principles: [", r"c\.yaml, line 1: not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "not valid YAML"),
        ("principles:\n  - {id: 2020-13-45, text: x}", "not valid YAML"),
        ("? [a]\n: b", "not valid YAML"),
        ("x: {prompt: p, edit_request: e}\nx: {prompt: q, edit_request: f}", r"c\.yaml, line 2: 'x' stands here twice"),
        ("principles:\n  - text: one\n    text: two", r"c\.yaml, line 3: 'text' stands here twice"),
    ],
)
def test_faults_point_to_file_entry_and_field(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(ConstitutionError, match=message) as caught:
        load_constitution(path)
    assert path in str(caught.value)


def test_a_key_that_stands_twice_in_json_is_refused(tmp_path):
    path = tmp_path / "c.json"
    entry = '{"prompt": "p", "edit_request": "e"}'
    path.write_text(f'{{"x": {entry}, "x": {entry}}}')
    with pytest.raises(ConstitutionError, match=r"c\.json: 'x' stands twice in one object"):
        load_constitution(str(path))


def test_invalid_json_and_encoding_are_named_with_their_place(tmp_path):
    with pytest.raises(ConstitutionError, match=r"c\.json, line 2: not valid JSON"):
        load_constitution(write(tmp_path, '[\n"a" "b"]', "c.json"))
    (tmp_path / "latin.yaml").write_bytes(b"- caf\xe9")
    with pytest.raises(ConstitutionError, match="byte 5 is not UTF-8"):
        load_constitution(str(tmp_path / "latin.yaml"))


THREE = Constitution("three", tuple(Principle(each, f"Text {each}.") for each in ("a", "b", "c")))


def test_choices():
    assert [each.id for each in choose_principles(THREE, "all", seed=0, row_id="r")] == ["a", "b", "c"]
    assert [each.id for each in choose_principles(THREE, "c, a", seed=0, row_id="r")] == ["c", "a"]


def test_a_sample_depends_on_seed_and_row_alone_and_reaches_all():
    drawn = [choose_principles(THREE, "sample", seed=0, row_id=f"r{n}") for n in range(60)]
    assert drawn == [choose_principles(THREE, "sample", seed=0, row_id=f"r{n}") for n in range(60)]
    assert drawn != [choose_principles(THREE, "sample", seed=1, row_id=f"r{n}") for n in range(60)]
    assert {each.id for (each,) in drawn} == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("a,d", "no principle 'd'; known: a, b, c"),
        (" , ", "no principle is named"),
        ("a,a", "'a' is named twice"),
    ],
)
def test_wrong_choices(spec, message):
    with pytest.raises(ConstitutionError, match=message):
        choose_principles(THREE, spec, seed=0, row_id="r")


def test_the_fingerprint_follows_what_can_change_a_label():
    one = {"name": "x", "principles": [{"id": "a", "text": "T", "source": "s"}]}
    same = {"name": "y", "description": "d", "principles": [{"text": "T", "weight": 1.0, "id": "a"}]}
    fingerprint = parse_constitution(one, path="f.yaml").fingerprint
    assert fingerprint == parse_constitution(same, path="g.yaml").fingerprint
    for changed in ({"id": "b", "text": "T"}, {"id": "a", "text": "U"}, {"id": "a", "text": "T", "weight": 2}):
        assert parse_constitution({"principles": [changed]}, path="f.yaml").fingerprint != fingerprint


def test_requests_are_those_of_principles_that_have_both(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(OURS)
    constitution = load_constitution(str(path))
    kind = RevisionRequests("kind", "Say where the answer is unkind.", "Make it kind.")
    assert revision_requests(constitution, "all") == revision_requests(constitution, "sample") == (kind,)
    assert revision_requests(constitution, "kind") == (kind,)
    lacking = r"'two-things' cannot revise by brief \(no critique_request and no revision_request\); give"
    with pytest.raises(ConstitutionError, match=lacking):
        revision_requests(constitution, "kind,brief")


def test_a_constitution_without_requests_is_refused_with_its_entries():
    half = Principle("half", "b", critique_request="What is wrong?")
    with pytest.raises(ConstitutionError, match=r"a \(no critique.* no revision.*\), half \(no revision_request\)"):
        revision_requests(Constitution("c", (Principle("a", "a"), half)), "all")


@pytest.mark.parametrize("shape", FOREIGN)
def test_every_format_in_the_wild_can_revise(tmp_path, shape):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(FOREIGN[shape]))
    found = revision_requests(load_constitution(str(path)), "all")
    assert [each.critique_request for each in found] == ["Say where the reply is rude.", "Say where the reply is cold."]
    assert [each.revision_request for each in found] == ["Make it polite.", "Make it warm."]


def test_the_marks_of_few_shot_dialogues_are_no_part_of_the_requests():
    entry = {
        "prompt": "\n\nCritiqueRequest: Is it rude?\n\nCritique:",
        "edit_request": "\n\nRevisionRequest: Mend it.\n\nRevision:",
    }
    constitution = parse_constitution({"rude": entry}, path="c.json")
    assert revision_requests(constitution, "all") == (RevisionRequests("rude", "Is it rude?", "Mend it."),)
