"""The recommenders of ``generative_quality.py``, their codes, and what each is set against."""

from dataclasses import replace
from typing import Any, NamedTuple

from foretaste.codes.coba import CoBaConfig
from foretaste.codes.opq import OPQConfig
from foretaste.codes.rqkmeans import RQKMeansConfig
from foretaste.codes.rqvae import RQVAEConfig
from foretaste.codes.table import Codes
from foretaste.codes.tokenizer import TokenizerConfig

ALL_CODES = {"normalise": "codes"}
"""Probabilities over all codes of a level, whether they lead to an item or not."""
ALONE = {"architecture": "decoder-only", "reads": "codes"}
TWO_STAGES = {"warm_up": 1, "warm_beams": 8}
"""One slot before the rest, as MDGR's paper has some."""
UNTAUGHT = {"align": 0.0, "contrast": 0.0, "regularise": 0.0}
"""Thoughts that nothing but the codes teaches: beside blank ones, what thinking alone is worth."""


class Arm(NamedTuple):
    """A way to recommend.

    Attributes:
        name: of the row.
        model: a recommender.
        codes: what it writes, a key of ``TOKENIZERS``.
        parameters: besides those that all share.
        against: its control.
        like: the arm whose settings it takes; without one it tries all.
    """

    name: str
    model: str
    codes: str = ""
    parameters: dict[str, Any] = {}  # noqa: RUF012 - never written on
    against: str = ""
    like: str = ""


TOKENIZERS: dict[str, TokenizerConfig] = {
    "rqkmeans": RQKMeansConfig(),
    "rqvae": RQVAEConfig(),
    "coba": CoBaConfig(),
    "opq": OPQConfig(levels=8),
    "opq of 4": OPQConfig(levels=4),
}
REVERSED = ", reversed"
"""After a key of ``TOKENIZERS``: its codes with the last slot first."""


def turned(codes: Codes) -> Codes:
    """The same codes with the last slot first; of codes without an extra level."""
    return replace(
        codes,
        table=codes.table[:, ::-1].copy(),
        sizes=codes.sizes[::-1],
        nearest=codes.nearest[:, ::-1].copy(),
        codebooks=codes.codebooks[::-1],
    )


PARALLEL = "autoregressive over parallel codes"
BLANK = "S2GR, blank thoughts"
ARMS = [
    Arm("popularity", "popularity"),
    Arm("EASE", "ease"),
    Arm("SASRec", "sasrec"),
    Arm("TIGER", "tiger", "rqkmeans"),
    Arm(PARALLEL, "tiger", "opq"),
    Arm("MDGR", "mdgr", "opq", TWO_STAGES, PARALLEL),
    Arm("S2GR", "s2gr", "coba", {}, BLANK),
    Arm(BLANK, "s2gr", "coba", {"thinking": "blank"}, "TIGER over CoBa codes"),
    Arm("TIGER over RQ-VAE codes", "tiger", "rqvae", {}, "TIGER", "TIGER"),
    Arm("TIGER over CoBa codes", "tiger", "coba", {}, "TIGER"),
    Arm(
        "MDGR, random masks",
        "mdgr",
        "opq",
        TWO_STAGES | {"curriculum": 0, "adaptive": 0.0},
        "MDGR",
        "MDGR",
    ),
    Arm("MDGR, curriculum alone", "mdgr", "opq", TWO_STAGES | {"adaptive": 0.0}, "MDGR", "MDGR"),
    Arm("S2GR, all thoughts first", "s2gr", "coba", {"thinking": "first"}, "S2GR", "S2GR"),
    Arm("S2GR, no alignment", "s2gr", "coba", {"align": 0.0}, "S2GR", "S2GR"),
    Arm("S2GR, shuffled clusters", "s2gr", "coba", {"shuffled": True}, "S2GR", "S2GR"),
    Arm("S2GR over RQ-VAE codes", "s2gr", "rqvae", {}, "S2GR, blank, over RQ-VAE codes", "S2GR"),
    Arm(
        "S2GR, blank, over RQ-VAE codes",
        "s2gr",
        "rqvae",
        {"thinking": "blank"},
        like=BLANK,
    ),
    Arm("TIGER, decoder only", "tiger", "rqkmeans", ALONE, "TIGER, reading codes"),
    Arm("MDGR of 4 slots", "mdgr", "opq of 4", TWO_STAGES, f"{PARALLEL}, of 4 slots", "MDGR"),
    Arm(f"{PARALLEL}, of 4 slots", "tiger", "opq of 4", {}, PARALLEL, PARALLEL),
    Arm("TIGER, of all codes", "tiger", "rqkmeans", ALL_CODES, "TIGER", "TIGER"),
    Arm(f"{PARALLEL}, of all codes", "tiger", "opq", ALL_CODES, PARALLEL, PARALLEL),
    Arm("MDGR, of all codes", "mdgr", "opq", TWO_STAGES | ALL_CODES, "MDGR", "MDGR"),
    Arm("TIGER, reading codes", "tiger", "rqkmeans", {"reads": "codes"}, "TIGER", "TIGER"),
    Arm("MDGR, reading codes", "mdgr", "opq", TWO_STAGES | {"reads": "codes"}, "MDGR", "MDGR"),
    Arm("S2GR, a tenth of the alignment", "s2gr", "coba", {"align": 0.1}, "S2GR", "S2GR"),
    Arm("S2GR, thoughts not taught", "s2gr", "coba", UNTAUGHT, BLANK, BLANK),
    Arm("S2GR, alignment that fades", "s2gr", "coba", {"fade": 25}, BLANK, "S2GR"),
    Arm(f"{PARALLEL}, slots reversed", "tiger", f"opq{REVERSED}", {}, PARALLEL, PARALLEL),
]
NAMED = {arm.name: arm for arm in ARMS}
FIXED = ("popularity", "ease")
"""Models without a learning rate and a seed."""
