"""What ``--explain-privacy`` says of a method beyond its lists."""

from __future__ import annotations

from foretaste.federated.core.base import World
from foretaste.federated.explaining import explain
from foretaste.federated.lumos import LUMOS, LUMOSConfig
from foretaste.recommenders.als import ALS

from .rings import method_of, small_sasrec
from .test_lumos import titled


def test_what_a_method_tells_besides_is_explained():
    def said(name: str, **config) -> str:
        return " ".join(explain(method_of(name, **config)).sentences)

    model = {"kind": "endpoint", "url": "http://10.0.0.7/v1", "model": "m", "elsewhere": True}
    random = {"kind": "random"}
    assert "no message holds one" in said("lumos", views=random)
    assert "view_items = trained" not in said("lumos", views=random)
    assert "tell of its views too" in said("lumos", views=random, view_items="trained")
    assert "Views" not in said("fedavg")
    assert "sketch" not in said("fedavg")
    als, codes = ALS(factors=4), {"semantic": "random"}
    assert "Few bytes are no privacy" in said("rqfedrec", model=als, **codes)
    config = LUMOSConfig.model_validate({"views": {"kind": "chat", "model": model}})
    told = " ".join(explain(LUMOS(config, World(titled(), small_sasrec()))).sentences)
    assert "LEAVE THE DEVICE for http://10.0.0.7/v1" in told
    assert "Nothing leaves a device for anybody else" not in told
    assert "Nothing leaves a device for anybody else" in said("fedavg")
