"""What is asked of a card after an error of the model. There is no card here: PyTorch's answers are played."""

import pytest
import torch

from service.runtime.device import is_lost

CARD = torch.device("cuda", 0)


def test_a_card_that_answers_after_an_error_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", asked.append)
    assert not is_lost(CARD)
    assert asked == [CARD]


def test_a_card_that_fails_whatever_it_is_asked_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "synchronize", fail)
    assert is_lost(CARD)


def test_the_cpu_is_never_lost() -> None:
    assert not is_lost(torch.device("cpu"))
