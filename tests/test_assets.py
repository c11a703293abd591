from pathlib import Path

import pytest

from rlaif import assets
from rlaif.assets import find_asset, shipped_names
from rlaif.errors import ConstitutionError, PromptError


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """A package folder as a wheel lays it out: `_data` inside, no checkout around."""
    package = tmp_path / "site-packages" / "rlaif"
    for kind, name in [("constitutions", "kind.yaml"), ("prompts", "pairwise/base.jinja")]:
        file = package / "_data" / kind / name
        file.parent.mkdir(parents=True)
        file.write_text("from the wheel")
    monkeypatch.setattr(assets, "_PACKAGE", package)
    return package


def test_a_path_the_user_gave_comes_first(wheel, tmp_path, monkeypatch):
    mine = tmp_path / "kind.yaml"
    mine.write_text("mine")
    monkeypatch.chdir(tmp_path)
    assert find_asset("constitutions", str(mine)) == mine
    assert find_asset("constitutions", "kind.yaml").read_text() == "mine"


def test_a_bare_name_is_never_a_local_file(wheel, tmp_path, monkeypatch):
    (tmp_path / "kind").write_text("unrelated")
    monkeypatch.chdir(tmp_path)
    assert find_asset("constitutions", "kind").read_text() == "from the wheel"


def test_the_wheels_copy_is_found_and_a_foreign_folder_beside_it_is_not(wheel):
    stranger = wheel.parent / "prompts" / "pairwise" / "base.jinja"
    stranger.parent.mkdir(parents=True)
    stranger.write_text("some other package's")
    assert find_asset("prompts", "pairwise/base.jinja").read_text() == "from the wheel"
    assert find_asset("prompts", "pairwise/base").read_text() == "from the wheel"


def test_the_live_checkout_comes_before_the_copy(wheel):
    checkout = wheel.parent
    (checkout / "pyproject.toml").write_text("")
    live = checkout / "constitutions" / "kind.yaml"
    live.parent.mkdir()
    live.write_text("live")
    assert find_asset("constitutions", "kind").read_text() == "live"


def test_a_name_cannot_climb_out_of_the_folder(wheel):
    (wheel / "_data" / "secret.yaml").write_text("outside")
    with pytest.raises(ConstitutionError, match="no file"):
        find_asset("constitutions", "../secret")


def test_unknown_names_are_answered_with_the_nearest(wheel):
    with pytest.raises(ConstitutionError, match=r"no constitution named 'kin' \(did you mean 'kind'\?\); known: kind$"):
        find_asset("constitutions", "kin")
    with pytest.raises(PromptError, match=r"there is no file pairwise/bse\.jinja, nor prompt named"):
        find_asset("prompts", "pairwise/bse.jinja")


def test_a_folder_is_no_file(wheel, tmp_path):
    with pytest.raises(ConstitutionError, match="is a folder, expected a file"):
        find_asset("constitutions", str(tmp_path))


def test_the_shipped_files_are_found_in_this_checkout():
    assert "pairwise/base" in shipped_names("prompts")
    assert Path(find_asset("prompts", "pairwise/base.jinja")).is_file()
