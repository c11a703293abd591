import csv
import json
import math

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif.data.judged import JudgedOptions, aligned_to, check_sampling, read_judged
from rlaif.data.sources import ReadOptions
from rlaif.errors import ConfigError, InputError
from rlaif.records import NamedLabel, SoftLabel, Verdict

A, B, TIE = Verdict.A, Verdict.B, Verdict.TIE
BOTH = JudgedOptions(judge_column="v12", judge_column_ba="v21")


def row(number=1, **more):
    return {"id": f"r{number}", "prompt": f"P{number}", "response_1": "x", "response_2": "y", **more}


def probs(source, options=None, **columns):
    found = read_judged(source, options or JudgedOptions(**columns))
    return [(each.prob_a, each.prob_a_ab, each.prob_a_ba) for each in found.rows]


class TestProbabilities:
    def test_all_columns_of_a_run(self):
        rows = [
            row(
                1,
                prob_a=0.7,
                prob_a_ab=0.9,
                prob_a_ba=0.5,
                rationale_ab="because",
                rationale_ba=None,
                by_judge=[{"name": "j", "prob_a": 0.6, "prob_a_ab": 0.7, "prob_a_ba": 0.5}],
                human_label="b",
            )
        ]
        (found,) = read_judged(rows).rows
        assert (found.prob_a, found.prob_a_ab, found.prob_a_ba) == (0.7, 0.9, 0.5)
        assert (found.rationale_ab, found.rationale_ba) == ("because", None)
        assert found.by_judge == (NamedLabel("j", SoftLabel(0.6, 0.7, 0.5)),)
        assert found.comparison.human_label is B

    def test_identical_responses_have_no_orders_and_are_kept(self):
        assert probs([row(prob_a=0.5, prob_a_ab=None, prob_a_ba=None)]) == [(0.5, None, None)]

    def test_a_null_is_no_answer_and_is_counted(self):
        found = read_judged([row(1, prob_a=None), row(2, prob_a=0.1)])
        assert [each.prob_a for each in found.rows] == [None, 0.1]
        assert found.answers.unusable == {"prob_a": 1}

    def test_text_of_a_csv_file_is_a_number(self, tmp_path):
        path = tmp_path / "in.csv"
        path.write_text("id,prompt,response_a,response_b,prob_a,human_label\n1,P,x,y,0.25,2.0\n2,Q,x,y,,1\n")
        found = read_judged(path).rows
        assert [(each.prob_a, each.comparison.human_label) for each in found] == [(0.25, B), (None, A)]

    def test_a_frame_and_a_parquet_file_with_nan(self, tmp_path):
        frame = pd.DataFrame([row(1, prob_a=0.25, human_label=1), row(2, prob_a=math.nan, human_label=math.nan)])
        pq.write_table(pa.Table.from_pandas(frame), tmp_path / "in.parquet")
        for source in (frame, tmp_path / "in.parquet"):
            found = read_judged(source).rows
            assert [each.prob_a for each in found] == [0.25, None]
            assert [each.comparison.human_label for each in found] == [A, None]

    @pytest.mark.parametrize("value", [1.2, -0.1, "NaN", "high", True, float("inf"), [0.5]])
    def test_what_is_no_probability_is_named_with_its_place(self, value):
        with pytest.raises(InputError, match=r"rows, line 2, column 'prob_a': is .*, expected a probability from 0 to"):
            read_judged([row(1, prob_a=0.5), row(2, prob_a=value)])

    def test_bad_rows_are_skipped_when_asked(self):
        options = JudgedOptions(ReadOptions(skip_bad_rows=True))
        found = read_judged([row(1, prob_a=7), row(2, prob_a=0.5), row(3) | {"prompt": None}], options)
        assert [each.comparison.id for each in found.rows] == ["r2"]
        assert {failure.id for failure in found.failures} == {"r1", "r3"}

    @pytest.mark.parametrize(
        ("value", "said"),
        [("x", "is 'x', expected a list"), ([{"prob_a": 0.5}], "an object with prob_a"), ([3], "holds 3")],
    )
    def test_a_panel_that_is_none(self, value, said):
        with pytest.raises(InputError, match=f"column 'by_judge': .*{said}"):
            read_judged([row(prob_a=0.5, by_judge=value)])

    def test_a_panel_as_json_text(self):
        text = json.dumps([{"name": "j", "prob_a": 0.5}, {"name": "k", "prob_a": None}])
        assert read_judged([row(prob_a=0.5, by_judge=text)]).rows[0].by_judge == (
            NamedLabel("j", SoftLabel(0.5, None, None)),
        )


class TestRecordedVerdicts:
    @pytest.mark.parametrize(
        ("value", "prob"),
        [
            *((value, 1.0) for value in (1, 1.0, "1", "1.0", "a", "A")),
            *((value, 0.0) for value in (2, 2.0, "2", "2.0", "b")),
            *((value, 0.5) for value in (0, 0.0, "0", "tie", "Tie ")),
            *((value, None) for value in (None, "", math.nan, "NaN")),
        ],
    )
    def test_one_order(self, value, prob):
        assert probs([row(v12=value)], judge_column="v12") == [(prob, prob, None)]
        assert probs([row(v12=value)], judge_column_ba="v12") == [(prob, None, prob)]

    @pytest.mark.parametrize(
        ("ab", "ba", "prob"),
        [(1, 1, 1.0), (1, 2, 0.5), (1, 0, 0.75), (0, 2, 0.25), (0, 0, 0.5), (1, None, None), (None, 2, None)],
    )
    def test_both_orders_make_their_mean(self, ab, ba, prob):
        ((found, found_ab, found_ba),) = probs([row(v12=ab, v21=ba)], BOTH)
        assert found == prob
        assert [found_ab, found_ba] == [{1: 1.0, 2: 0.0, 0: 0.5, None: None}[each] for each in (ab, ba)]

    def test_they_win_over_prob_a(self):
        assert probs([row(prob_a=0.1, v12=1)], judge_column="v12") == [(1.0, 1.0, None)]

    def test_nulls_and_missing_paths_are_counted_apart(self):
        rows = [row(1, v={"x": 1}), row(2, v={"x": None}), row(3, v={"y": 1}), row(4)]
        found = read_judged(rows, JudgedOptions(judge_column="v.x"))
        assert [each.prob_a for each in found.rows] == [1.0, None, None, None]
        assert (found.answers.unusable, found.answers.absent) == ({"ab": 1}, {"ab": 2})
        assert found.answers.columns == ("v.x",)
        assert "verdicts" in found.answers.scale

    def test_names_with_dots_and_slashes(self):
        rows = [row(judge_votes={"gpt-3.5/CoT": {"order_12": 2}})]
        assert probs(rows, judge_column="judge_votes.gpt-3.5/CoT.order_12") == [(0.0, 0.0, None)]

    def test_a_path_in_no_row_names_what_is_near(self):
        rows = [row(judge_votes={"gpt4": {"order_12": 2, "order_21": 1}})]
        with pytest.raises(InputError, match=r"column 'judge_votes.gpt4.order_13': is in no row \(did you mean 'judge"):
            read_judged(rows, JudgedOptions(judge_column="judge_votes.gpt4.order_13"))
        with pytest.raises(InputError, match="is in no row; there is judge_votes.gpt4.order_12, judge_votes.gpt4"):
            read_judged(rows, JudgedOptions(judge_column="judge_votes.claude-with-a-long-name.x"))
        with pytest.raises(InputError, match="is in no row; the rows have: id, prompt, response_1, response_2"):
            read_judged([row()], JudgedOptions(judge_column="zzzzz"))

    @pytest.mark.parametrize("value", [3, "c", True, "chosen", [1]])
    def test_what_is_no_verdict(self, value):
        with pytest.raises(InputError, match=r"line 2, column 'v12': holds .*, expected 'a', 'b' or 'tie'"):
            read_judged([row(1, v12=1), row(2, v12=value)], JudgedOptions(judge_column="v12"))

    def test_zeros_without_a_two_are_noted(self):
        rows = [row(1, v12=1), row(2, v12=0)]
        assert "each 0 was read as a tie" in read_judged(rows, JudgedOptions(judge_column="v12")).answers.notes[0]
        assert read_judged([*rows, row(3, v12=2)], JudgedOptions(judge_column="v12")).answers.notes == ()

    def test_a_null_order_leaves_only_that_orders_figures(self):
        assert probs([row(v12=1, v21=None)], BOTH) == [(None, 1.0, None)]


class TestScales:
    def test_a_number_between_one_and_two_makes_a_preference(self):
        rows = [row(1, v12=1.2), row(2, v12=2), row(3, v12="1.0000001827"), row(4, v12=1.5), row(5, v12=0)]
        found = read_judged(rows, JudgedOptions(judge_column="v12"))
        assert [each.prob_a for each in found.rows] == pytest.approx([0.8, 0.0, 1 - 1.827e-7, 0.5, 0.5], abs=1e-12)
        assert found.answers.scale == "preference, 1 (A) to 2 (B)"

    def test_a_number_between_zero_and_one_makes_a_probability(self):
        rows = [row(1, v12=1), row(2, v12=0), row(3, v12="0.25"), row(4, v12=1.0000000002)]
        found = read_judged(rows, JudgedOptions(judge_column="v12"))
        assert [each.prob_a for each in found.rows] == [1.0, 0.0, 0.25, 1.0]
        assert found.answers.scale == "P(A preferred), 0 to 1"

    def test_both_are_refused(self):
        with pytest.raises(InputError, match=r"rows, column 'v12': holds 0\.5 and 1\.5, expected P\(A preferred\)"):
            read_judged([row(1, v12=1.5), row(2, v12=0.5)], JudgedOptions(judge_column="v12"))

    def test_a_number_off_the_scale(self):
        with pytest.raises(InputError, match="line 2, column 'v12': holds 2, expected a number from 0 to 1 as in"):
            read_judged([row(1, v12=0.4), row(2, v12=2)], JudgedOptions(judge_column="v12"))

    def test_the_name_of_alpacaeval(self):
        found = read_judged([row(1, preference=1), row(2, preference=2)], JudgedOptions(judge_column="preference"))
        assert ([each.prob_a for each in found.rows], found.answers.scale) == ([1.0, 0.0], "preference, 1 (A) to 2 (B)")

    def test_the_orders_have_a_scale_each(self):
        rows = [row(1, v12=0.25, v21=2), row(2, v12=0.5, v21=1)]
        assert probs(rows, BOTH) == [(0.125, 0.25, 0.0), (0.75, 0.5, 1.0)]

    def test_scores_of_the_two(self):
        rows = [row(n, s=one, t=other) for n, (one, other) in enumerate([(3, 2), (2, "3.5"), (4, 4), (None, 1)])]
        found = read_judged(rows, JudgedOptions(judge_column="s,t"))
        assert [each.prob_a for each in found.rows] == [1.0, 0.0, 0.5, None]
        assert found.answers.scale == "scores of A and of B, the larger wins"

    def test_a_score_that_is_none(self):
        with pytest.raises(InputError, match="column 's,t': holds 'N/A', expected a number, or null"):
            read_judged([row(s=1, t="N/A")], JudgedOptions(judge_column="s,t"))

    @pytest.mark.parametrize("column", ["", "s,", "s,t,u"])
    def test_a_column_that_is_none(self, column):
        with pytest.raises(ConfigError, match="expected one path, or two paths to scores"):
            read_judged([row(s=1, t=2)], JudgedOptions(judge_column=column))

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
    def test_a_preference_is_its_probability_on_another_scale(self, chances):
        as_probs = probs([row(n, v12=p) for n, p in enumerate([*chances, 0.25])], judge_column="v12")
        as_preferences = probs([row(n, v12=2 - p) for n, p in enumerate([*chances, 0.25])], judge_column="v12")
        for (one, _, _), (other, _, _) in zip(as_probs, as_preferences, strict=True):
            assert one == pytest.approx(other, abs=1e-12)


class TestFilesAsTheyCome:
    def hh(self, number):
        start = f"\n\nHuman: Q{number}\n\nAssistant:"
        return {"chosen": f"{start} good", "rejected": f"{start} bad"}

    def test_a_verdict_on_chosen_and_rejected_names_chosen_as_the_file_has_it(self):
        values = [1, "a", "chosen", 2, "b", "rejected", 0, "tie"]
        rows = [self.hh(n) | {"v12": values[n % 8]} for n in range(80)]
        found = read_judged(rows, JudgedOptions(judge_column="v12")).rows
        assert {each.comparison.human_label for each in found} == {A, B}
        for number, each in enumerate(found):
            is_a_good = each.comparison.response_a == "good"
            expected = {0: float(is_a_good), 1: 1.0 - is_a_good}.get(number % 8 // 3, 0.5)
            assert each.prob_a == expected
            assert each.comparison.human_label is (A if is_a_good else B)

    def test_the_order_is_of_what_was_shown(self):
        rows = [self.hh(n) | {"v12": 1} for n in range(40)]  # chosen was shown first, and preferred
        for each in read_judged(rows, JudgedOptions(judge_column="v12")).rows:
            is_a_good = each.comparison.response_a == "good"
            assert (each.prob_a_ab, each.prob_a_ba) == ((1.0, None) if is_a_good else (None, 0.0))

    def test_ultrafeedback_binarized(self):
        def messages(text):
            return [{"role": "user", "content": "Q"}, {"role": "assistant", "content": text}]

        rows = [
            {"prompt": "Q", "prompt_id": str(n), "chosen": messages(f"good {n}"), "rejected": messages("bad")}
            | {"score_chosen": 8.0, "score_rejected": 3.0 + 5 * (n % 2)}
            for n in range(40)
        ]
        for each, (number, found) in zip(
            rows,
            enumerate(read_judged(rows, JudgedOptions(judge_column="score_chosen,score_rejected")).rows),
            strict=True,
        ):
            assert each["score_chosen"] == 8.0
            is_a_good = found.comparison.response_a.startswith("good")
            assert found.prob_a == (0.5 if number % 2 else float(is_a_good))

    def test_prob_a_beside_chosen_and_rejected_is_ambiguous(self):
        with pytest.raises(InputError, match="column 'prob_a': stands beside chosen and rejected, and which of them"):
            read_judged([self.hh(1) | {"prob_a": 0.7}])
        (found,) = read_judged([self.hh(1) | {"prob_a": 0.7, "prompt": "Q", "response_a": "x", "response_b": "y"}]).rows
        assert (found.comparison.response_a, found.prob_a) == ("x", 0.7)

    def test_alpacaeval(self):
        rows = [
            {"instruction": f"I{n}", "output_1": "x", "output_2": "y", "preference": value, "generator_1": "g"}
            for n, value in enumerate([1.25, 2.0, None, 1.0000001827])
        ]
        found = read_judged(rows)
        assert [each.prob_a for each in found.rows] == pytest.approx([0.75, 0.0, None, 1.0], abs=1e-6)
        assert all(each.prob_a_ab is None and each.prob_a_ba is None for each in found.rows)
        assert found.answers.columns == ("preference",)
        assert "read by itself" in found.answers.notes[0]

    def test_ultrafeedback(self):
        rows = [
            {
                "instruction": f"I{n}",
                "models": ["a", "b"],
                "completions": [{"response": "x", "overall_score": 7.5}, {"response": "y", "overall_score": 7.5 + n}],
            }
            for n in range(2)
        ]
        columns = {"response_a": "completions.0.response", "response_b": "completions.1.response"}
        options = JudgedOptions(
            ReadOptions(columns), judge_column="completions.0.overall_score,completions.1.overall_score"
        )
        assert [each.prob_a for each in read_judged(rows, options).rows] == [0.5, 0.0]

    def test_no_answers_at_all(self):
        rows = [row(judge_votes={"gpt4": {"order_12": 2, "raw": "text"}}, human_label=1, topic="t")]
        with pytest.raises(InputError, match=r"--judge-column \(and .*\), such as judge_votes\.gpt4\.order_12$"):
            read_judged(rows)
        with pytest.raises(InputError, match=r"--judge-column-ba\)$"):
            read_judged([row()])

    def test_nested_text_of_a_csv_file(self, tmp_path):
        path = tmp_path / "in.csv"
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, ["prompt", "response_a", "response_b", "judge_votes"])
            writer.writeheader()
            writer.writerow(
                {"prompt": "P", "response_a": "x", "response_b": "y", "judge_votes": '{"gpt4": {"order_12": 2}}'}
            )
        assert probs(path, judge_column="judge_votes.gpt4.order_12") == [(0.0, 0.0, None)]


class TestContext:
    def test_rows_of_one_prompt_belong_together(self):
        rows = [row(1, prob_a=1), row(2, prob_a=1) | {"prompt": "P1"}, row(3, prob_a=1)]
        clusters = [each.cluster for each in read_judged(rows).rows]
        assert clusters[0] == clusters[1] != clusters[2]

    def test_a_cluster_column(self):
        rows = [row(1, prob_a=1, meta={"q": 7}), row(2, prob_a=1, meta={"q": 7}), row(3, prob_a=1, meta={"q": "x"})]
        assert [each.cluster for each in read_judged(rows, JudgedOptions(cluster="meta.q")).rows] == ["7", "7", "x"]
        with pytest.raises(InputError, match="line 2, column 'meta.q': is missing; the row has: id"):
            read_judged([rows[0], row(4, prob_a=1)], JudgedOptions(cluster="meta.q"))
        with pytest.raises(InputError, match="line 1, column 'meta.q': is null, expected what"):
            read_judged([row(4, prob_a=1, meta={"q": None})], JudgedOptions(cluster="meta.q"))

    def test_groups_default_to_the_task(self):
        found = read_judged([row(1, prob_a=1, task="x"), row(2, prob_a=1, task=None), row(3, prob_a=1)])
        assert [dict(each.groups) for each in found.rows] == [{"task": "x"}, {"task": "none"}, {"task": "none"}]
        assert found.by == ("task",)
        assert read_judged([row(1, prob_a=1)]).by == ()

    def test_groups_of_any_path(self):
        rows = [row(1, prob_a=1, meta={"k": True}, n=2), row(2, prob_a=1, meta={}, n=2.5)]
        found = read_judged(rows, JudgedOptions(by=("meta.k", "n"))).rows
        assert [dict(each.groups) for each in found] == [{"meta.k": "true", "n": "2"}, {"meta.k": "none", "n": "2.5"}]
        with pytest.raises(InputError, match="column 'meta.x': is in no row"):
            read_judged(rows, JudgedOptions(by=("meta.x",)))

    @pytest.mark.parametrize("value", [0, 1.5, -1, "often"])
    def test_sampling_probabilities(self, value):
        assert read_judged([row(1, prob_a=1, sampling_prob="0.5")]).rows[0].sampling_prob == 0.5
        assert read_judged([row(1, prob_a=1, sampling_prob="")]).rows[0].sampling_prob is None
        with pytest.raises(InputError, match="column 'sampling_prob': is .*, expected a number above 0, up to 1"):
            read_judged([row(1, prob_a=1, sampling_prob=value)])

    def test_labels_with_and_without_a_sampling_probability_cannot_be_weighted(self):
        labelled = row(1, prob_a=1, sampling_prob=0.5, human_label=1)
        check_sampling(read_judged([labelled, row(2, prob_a=1)]).rows, "rows")
        check_sampling(read_judged([row(1, prob_a=1, human_label=1)]).rows, "rows")
        for other in ({"human_label": "tie"}, {"human_votes": [1, 2]}):
            with pytest.raises(InputError, match="1 of 2 rows with human labels have none .*'r2'"):
                check_sampling(read_judged([labelled, row(2, prob_a=1, **other)]).rows, "rows")

    def test_human_columns_are_renamed_and_extra_columns_dropped(self):
        options = JudgedOptions(ReadOptions({"human_label": "gold"}))
        (found,) = read_judged([row(1, prob_a=1, gold="2.0", more="x" * 1000)], options).rows
        assert (found.comparison.human_label, dict(found.comparison.extra)) == (B, {})


class TestAlignment:
    def test_rows_drawn_with_another_seed_are_turned_round(self):
        rows = [
            {"prompt": "P", "chosen": f"g{n}", "rejected": f"b{n}", "id": f"r{n}", "v": 1, "w": 2} for n in range(40)
        ]
        options = {"judge_column": "v", "judge_column_ba": "w"}
        mine = read_judged(rows, JudgedOptions(**options)).rows
        other = read_judged(rows, JudgedOptions(ReadOptions(seed=1), **options)).rows
        found = aligned_to(mine, other)
        assert 0 < found.reversed < 40
        assert found.different == 0
        for one, two in zip(mine, found.rows, strict=True):
            assert one.comparison.response_a == two.comparison.response_a
            # This judge prefers what is shown first, whichever that is.
            assert (
                (one.prob_a, one.prob_a_ab, one.prob_a_ba) == (two.prob_a, two.prob_a_ab, two.prob_a_ba) == (0.5, 1, 0)
            )

    def test_orders_follow(self):
        (mine,) = read_judged([row(1, prob_a=0.4, prob_a_ab=0.9, prob_a_ba=0.1)]).rows
        turned = row(1, prob_a=0.6, prob_a_ab=0.2, prob_a_ba=1.0) | {"response_1": "y", "response_2": "x"}
        (found,) = aligned_to([mine], read_judged([turned]).rows).rows
        assert (found.prob_a, found.prob_a_ab, found.prob_a_ba) == (0.4, 0.0, 0.8)

    def test_other_responses_under_the_same_id_are_left_out(self):
        mine = read_judged([row(1, prob_a=0.4)]).rows
        others = read_judged([row(1, prob_a=0.6) | {"response_1": "z"}, row(2, prob_a=0.1)]).rows
        found = aligned_to(mine, others)
        assert ([each.comparison.id for each in found.rows], found.different) == (["r2"], 1)


def test_one_column_is_not_of_both_orders():
    with pytest.raises(ConfigError, match="--judge-column and --judge-column-ba name the same column 'v'"):
        read_judged([row(1, v="a")], JudgedOptions(judge_column="v", judge_column_ba="v"))
