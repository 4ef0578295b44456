"""How a batch is padded: to few different lengths, and never longer than the network takes."""

import pytest
import torch

from service.runtime.interface import Tokens
from service.runtime.transformer import pad

CPU = torch.device("cpu")


@pytest.mark.parametrize(("longest", "max_tokens", "width"), [(1, 512, 8), (8, 512, 8), (9, 512, 16), (509, 510, 510)])
def test_a_batch_is_as_long_as_the_next_multiple_of_8_that_the_network_takes(
    longest: int, max_tokens: int, width: int
) -> None:
    ids, mask = pad([Tokens([7]), Tokens([7] * longest)], 3, CPU, 8, max_tokens)
    assert ids.tolist() == [[7] + [3] * (width - 1), [7] * longest + [3] * (width - longest)]
    assert mask.tolist() == [[1] + [0] * (width - 1), [1] * longest + [0] * (width - longest)]


def test_a_model_file_that_does_not_say_what_its_network_takes_gets_the_longest_input() -> None:
    """Model files are the team's: those written before the limit was an argument must go on."""
    ids, mask = pad([Tokens([7]), Tokens([7, 7, 7])], 3, CPU)
    assert ids.tolist() == [[7, 3, 3], [7, 7, 7]]
    assert mask.tolist() == [[1, 0, 0], [1, 1, 1]]
