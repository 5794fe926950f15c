"""Torch's stream: the draws of a seed within, undisturbed outside."""

import pytest
import torch

from clients.models.seeding import torch_seeded


@pytest.mark.parametrize("seed", [0, 7, 2**32 + 5, 2**64 - 1])
def test_the_draws_are_those_of_torchs_own_seeding(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        wanted = torch.rand(5)
    with torch_seeded(seed):
        assert torch.equal(torch.rand(5), wanted)


def test_the_stream_goes_on_afterwards_also_after_an_error():
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    with pytest.raises(KeyError), torch_seeded(5):
        torch.rand(9)
        raise KeyError
    assert torch.equal(torch.rand(3), wanted)
