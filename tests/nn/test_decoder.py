"""Texts that share a reading, written at once or step by step."""

from __future__ import annotations

import pytest
import torch

from foretaste.nn.decoder import Decoder, Memory, Texts, Written

DIM, HEADS, EVENTS = 12, 2, 6


def decoder(*, causal: bool = True) -> Decoder:
    torch.manual_seed(0)
    made = Decoder(DIM, HEADS, 2, EVENTS, 0.0, causal=causal)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def memory(of: Decoder, histories: int = 3, events: int = 5, lengths=(5, 3, 1)) -> Memory:
    states = torch.randn(histories, events, DIM, generator=torch.Generator().manual_seed(1))
    back = torch.tensor(lengths)[:histories, None, None] - 1 - torch.arange(events)
    return of.remember(states, back)


@pytest.mark.parametrize("of", [[0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2], [1], [0, 2, 2]])
def test_together_and_apart_are_inverse(of: list[int]):
    texts, x = Texts(torch.tensor(of), 3), torch.randn(len(of), 4, DIM)
    together = texts.together(x)
    assert together.shape == (3, texts.width * 4, DIM)
    torch.testing.assert_close(texts.apart(together), x)
    row = of.index(max(of))  # the first text of the last history that has any
    torch.testing.assert_close(together[max(of), :4], x[row])


def test_step_by_step_equals_at_once():
    made = decoder()
    known, of = memory(made), torch.tensor([0, 0, 1, 2, 2, 2])
    x = torch.randn(6, 4, DIM)
    whole, _ = made(x, known, Texts(of, 3))
    written: Written | None = None
    for place in range(4):
        step, written = made(x[:, place : place + 1], known, Texts(of, 3), written)
        torch.testing.assert_close(step[:, 0], whole[:, place], atol=1e-5, rtol=1e-4)
    two, written = made(x[:, :2], known, Texts(of, 3))
    rest, _ = made(x[:, 2:], known, Texts(of, 3), written)
    torch.testing.assert_close(torch.cat([two, rest], 1), whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("of", [[0, 0, 1, 1, 2, 2], [0, 0, 1, 2, 2, 2]])
def test_a_draft_is_written_as_the_whole(of: list[int]):
    made = decoder()
    known, texts = memory(made), Texts(torch.tensor(of), 3)
    x = torch.randn(6, 4, DIM)
    whole, _ = made(x, known, texts)
    draft = made.draft(6, 4)
    for place in range(4):
        step = made.go_on(x[:, place], known, texts, draft)
        torch.testing.assert_close(step, whole[:, place], atol=1e-5, rtol=1e-4)


def test_beams_go_on_from_their_parents():
    made = decoder()
    known, of = memory(made), torch.tensor([0, 1, 1])
    first, rest = torch.randn(3, DIM), torch.randn(4, 2, DIM)
    draft = made.draft(3, 1)
    made.go_on(first, known, Texts(of, 3), draft)
    parents = torch.tensor([0, 0, 2, 1])
    draft, texts = draft.follow(parents, 2), Texts(of[parents], 3)
    after = [made.go_on(rest[:, place], known, texts, draft) for place in range(2)]
    for row, parent in enumerate(parents):
        text = torch.cat([first[parent, None], rest[row]])[None]
        alone, _ = made(text, known, Texts(of[parent : parent + 1], 3))
        for place in range(2):
            torch.testing.assert_close(after[place][row], alone[0, 1 + place], atol=1e-5, rtol=1e-4)


def test_texts_do_not_see_each_other_nor_what_is_hidden():
    made = decoder()
    states = torch.randn(1, 5, DIM)
    x = torch.randn(3, 2, DIM)
    back = torch.tensor([0, 2, 4])[:, None] - torch.arange(5)  # texts after events 0, 2 and 4
    found, _ = made(
        x, made.remember(states, back[None]), Texts(torch.zeros(3, dtype=torch.int64), 1)
    )
    for row, end in enumerate((1, 3, 5)):
        short = made.remember(states[:, :end], back[None, row : row + 1, :end])
        alone, _ = made(x[row : row + 1], short, Texts(torch.zeros(1, dtype=torch.int64), 1))
        torch.testing.assert_close(found[row], alone[0], atol=1e-5, rtol=1e-4)


def test_only_a_causal_decoder_hides_what_follows():
    x = torch.randn(2, 3, DIM)
    changed = x.clone()
    changed[:, 2] = torch.randn(2, DIM)  # a shift alone would be normed away
    for causal in (True, False):
        made = decoder(causal=causal)
        known, texts = memory(made), Texts(torch.tensor([0, 1]), 3)
        one, other = made(x, known, texts)[0], made(changed, known, texts)[0]
        assert torch.allclose(one[:, :2], other[:, :2], atol=1e-6) is causal


def test_distance_is_read():
    made = decoder()
    states = torch.randn(1, 4, DIM).expand(-1, -1, -1).clone()
    near = made.remember(states, torch.tensor([[[3, 2, 1, 0]]]))
    far = made.remember(states, torch.tensor([[[5, 4, 3, 2]]]))
    texts = Texts(torch.tensor([0]), 1)
    x = torch.randn(1, 1, DIM)
    assert not torch.allclose(made(x, near, texts)[0], made(x, far, texts)[0], atol=1e-4)
