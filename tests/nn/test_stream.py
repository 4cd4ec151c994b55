"""Going on from a history token by token is the whole stream at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from foretaste.nn.decoder import Texts
from foretaste.nn.key_values import FullKeyValues
from foretaste.nn.stream import StreamBlock, before_the_text


@pytest.mark.parametrize("window", [4, 20])
def test_texts_of_ragged_histories_equal_whole_streams(window: int):
    torch.manual_seed(0)
    block = StreamBlock(8, 2, window, 0.0, FullKeyValues(8, 2, nn.Identity())).eval()
    nn.init.normal_(block.attention.by_distance)
    lengths, of = torch.tensor([5, 2, 7]), torch.tensor([0, 0, 2])  # nothing about the second
    histories, written = torch.randn(3, 7, 8), torch.randn(3, 3, 8)
    with torch.no_grad():
        known, back = block.remember(histories), before_the_text(7, lengths)
        texts, before = Texts(of, 3), None
        for place in range(3):
            found, before = block.write(written[:, place], known, back, texts, before)
            for row, history in enumerate(of.tolist()):
                real = histories[history, : int(lengths[history])]
                whole = torch.cat([real, written[row, : place + 1]])[None]
                torch.testing.assert_close(found[row], block(whole)[0, -1])
