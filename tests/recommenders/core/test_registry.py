"""Recommenders are found by the name of their file, or by having been imported."""

import pytest

from foretaste.errors import InputError
from foretaste.recommenders.core.registry import RECOMMENDERS, find, names
from foretaste.recommenders.popularity import Popularity


def test_every_file_holds_the_class_of_its_name():
    assert {"popularity", "markov", "itemknn", "ease", "als"} <= set(names())
    assert {"sasrec", "gru4rec", "bert4rec", "hstu"} <= set(names())
    assert "core" not in names()
    assert names() == sorted(names())
    for name in names():
        assert find(name).name == name


def test_a_misspelt_name_gets_the_nearest():
    with pytest.raises(InputError, match=r'"sasrek".*Did you mean "sasrec"'):
        find("sasrek")
    with pytest.raises(InputError, match=r"Known: .*ease.*popularity"):
        find("zzzzzz")
    for wrong in ("core", "core.base", "../ease", ""):
        with pytest.raises(InputError, match="no recommender is called"):
            find(wrong)


def test_a_class_of_another_package_registers_itself(monkeypatch):
    monkeypatch.setattr(RECOMMENDERS, "classes", dict(RECOMMENDERS.classes))

    class Mine(Popularity):
        name = "mine"

    class Nameless(Mine):
        pass

    assert find("mine") is Mine
    assert "mine" in names()
    assert Nameless.name == "mine"
