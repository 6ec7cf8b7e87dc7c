"""Training data made by several processes."""

from __future__ import annotations

import operator
from functools import partial

import torch
from torch import nn

from careedit.finetune import pool
from careedit.finetune.drawing import in_order, processes
from careedit.finetune.precision import NumberFormat, using


def test_processes_make_the_same_as_one_and_in_the_same_order():
    function, groups = partial(operator.mul, 3), [range(3), range(3, 4), range(4, 9)]
    state = torch.get_rng_state()
    assert (
        list(in_order(function, groups, 2))
        == list(in_order(function, groups, 0))
        == [[0, 3, 6], [9], [12, 15, 18, 21, 24]]
    )
    assert list(in_order(function, [], 2)) == []
    assert torch.equal(torch.get_rng_state(), state)


def test_one_thread_draws_in_this_process(monkeypatch):
    for threads, count in ((1, 0), (3, 3)):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        assert processes() == count


def test_equal_canvases_are_encoded_once_and_all_have_their_latents(monkeypatch):
    class Vae(nn.Module):
        dtype, seen = torch.float32, 0
        config = type("Config", (), {"shift_factor": 1.0, "scaling_factor": 2.0})

        def encode(self, pixels: torch.Tensor) -> object:
            self.seen += len(pixels)
            latent = type("Latent", (), {"mean": pixels.mean(dim=(2, 3), keepdim=True)})
            return type("Encoded", (), {"latent_dist": latent})

    vae = Vae()
    base = type("Base", (), {"vae": vae, "device": torch.device("cpu"), "dtype": torch.float32})
    canvases = torch.arange(5.0)[torch.tensor([3, 1, 3, 0, 1])].view(5, 1, 1, 1).expand(5, 3, 4, 4)
    monkeypatch.setattr(pool, "CHUNK_PIXELS", 32)
    with using(NumberFormat("float32", "requested", "cpu")):
        latents = pool.encode_canvases(base, canvases)  # type: ignore[arg-type]
    assert vae.seen == 3
    assert latents[:, 0, 0, 0].tolist() == [4, 0, 4, -2, 0]
