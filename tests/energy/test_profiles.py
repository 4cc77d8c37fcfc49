"""Energy profiles: the built-in ones are cited, a user's file is checked."""

from fractions import Fraction

import pytest

from sparsespike.common.errors import ConfigError
from sparsespike.energy.profiles import Profile, builtin_profiles, get_profile, load_profiles

GOOD = """
[my-chip]
title = "My chip"
mac_pJ = 1.5
ac_pJ = 0.4
process = "22 nm"
source = "a data sheet"
leaves_out = ["everything else"]
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "chips.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return to_file


def test_constants_of_the_paper():
    paper = get_profile("paper")
    assert (paper.mac_pj, paper.ac_pj) == (Fraction(46, 10), Fraction(9, 10))
    assert (paper.update_pj, paper.message_pj) == (0, 0)


def test_builtin_profiles_are_cited_and_named():
    profiles = builtin_profiles()
    assert {"paper", "horowitz-int8", "loihi1-inactive", "loihi1-active", "loihi1-one-hop", "tianjic"} <= set(profiles)
    assert {"truenorth", "truenorth-marginal", "spinnaker1", "spinnaker1-core", "spinnaker2-prototype", "spinnaker2"} <= set(
        profiles
    )
    for name, profile in profiles.items():
        assert profile.name == name
        assert profile.source
        assert profile.process
        assert profile.leaves_out
        assert str(profile).startswith(f"{name} (MAC ")


def test_own_file(write):
    path = write(GOOD)
    assert load_profiles(path).keys() == {"my-chip"}
    chip = get_profile("my-chip", path)
    assert (chip.mac_pj, chip.ac_pj, chip.leaves_out) == (Fraction(3, 2), Fraction(2, 5), ("everything else",))
    assert get_profile("paper", path) == get_profile("paper")


def test_constants_are_what_the_file_says_to_the_last_digit(write):
    text = GOOD.replace("0.4", "0.12345678901234567890123")
    assert get_profile("my-chip", write(text)).ac_pj == Fraction("0.12345678901234567890123")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ac_pJ = 0.4", "ac_PJ = 0.4", r"unknown key 'ac_PJ' \(did you mean 'ac_pJ'\?\)"),
        ("ac_pJ = 0.4", "", r"my-chip: ac_pJ missing"),
        ('source = "a data sheet"\n', "", r"source missing"),
        ("0.4", "-0.4", r"ac_pJ: found -0.4, expected 0, or 1e-09 to 1e\+12 pJ"),
        ("0.4", "nan", r"ac_pJ: found NaN"),
        ("0.4", "inf", r"ac_pJ: found Infinity"),
        ("0.4", "1e999999999", r"ac_pJ: found 1E\+999999999"),
        ("0.4", "1e-999999999", r"ac_pJ: found 1E-999999999"),
        ("0.4", "1" + "0" * 400, r"ac_pJ: found 10000"),
        ("0.4", '"0.4"', r"ac_pJ: found '0.4', expected a number"),
        ("0.4", "true", r"ac_pJ: found True, expected a number"),
        ('"a data sheet"', '" "', r"source: found ' ', expected a text"),
        ('"a data sheet"', "3", r"source: found 3, expected a text"),
        ('["everything else"]', '"everything"', r"leaves_out: found 'everything', expected a list of texts"),
        ('["everything else"]', "[1]", r"leaves_out: found \[1\], expected a list of texts"),
        ("[my-chip]", "[paper]", r"found 'paper', the name of a built-in profile"),
        ("[my-chip]", '["my chip"]', r"found the name 'my chip'"),
        ("[my-chip]", "[my-chip", r"no valid TOML"),
        (GOOD, "", r"found no table"),
        (GOOD, "mac_pJ = 3", r"found 3, expected a table"),
    ],
)
def test_a_wrong_file_is_one_clear_message(write, old, new, message):
    assert old in GOOD
    path = write(GOOD.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_profiles(path)
    assert "chips.toml" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_profiles(tmp_path / "absent.toml")
    (tmp_path / "latin.toml").write_bytes(b"title = '\xe9'")
    with pytest.raises(ConfigError, match="expected a TOML file in UTF-8"):
        load_profiles(tmp_path / "latin.toml")


def test_unknown_profile_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'papre' is unknown \(did you mean 'paper'\?\); expected one of paper, horowitz"):
        get_profile("papre")


def test_profile_made_in_code():
    fields = {"name": "x", "title": "x", "process": "x", "source": "x", "leaves_out": []}
    assert Profile(mac_pj=4.6, ac_pj=0, **fields).mac_pj == Fraction(23, 5)
    with pytest.raises(ConfigError, match="mac_pJ: found None"):
        Profile(mac_pj=None, ac_pj=0, **fields)
