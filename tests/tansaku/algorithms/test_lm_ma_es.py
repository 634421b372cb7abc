"""LM-MA-ES is its algorithm 1, learns the scales of many genes, and its memory is linear in them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tansaku import LMMAES, Assessment, Individual, Objective, Population, Search
from tansaku.testing import ellipsoid, sphere

F64 = torch.float64


def begin(x0: Tensor) -> Population:
    return Population({"x": x0[None]}, assessment=Assessment(torch.full((1,), float("inf"), dtype=F64)))


def run(algorithm: LMMAES, cost: Any, x0: Tensor, count: int, seed: int = 1) -> list[Any]:
    noise = torch.Generator().manual_seed(seed)
    state, seen = algorithm.init(begin(x0)), []
    for _ in range(count):
        asked = algorithm.ask(state, noise)
        asked = asked.assessed(Assessment(cost(asked["x"])))
        state = algorithm.tell(state, asked)
        seen.append((asked, state))
    return seen


def test_every_generation_is_algorithm_1_written_with_loops() -> None:
    n, k, m, sigma = 80, 16, 6, 0.3
    x0 = torch.ones(n, dtype=F64)
    mu = k // 2
    raw = [math.log(mu + 0.5) - math.log(i) for i in range(1, mu + 1)]
    weights = [w / sum(raw) for w in raw]
    mueff = 1 / sum(w * w for w in weights)
    c_sigma = 2 * k / n
    mean, path, memory = x0.clone(), torch.zeros(n, dtype=F64), torch.zeros(m, n, dtype=F64)
    for t, (asked, state) in enumerate(run(LMMAES(k=k, m=m, std=sigma), lambda x: ellipsoid(x, 100.0), x0, 15)):
        z = asked.traits["normal"]
        d = []
        for i in range(k):
            row = z[i]
            for j in range(min(t, m)):
                c = 1 / (1.5**j * n)
                row = (1 - c) * row + c * memory[j] * float(memory[j] @ row)
            d.append(row)
        x = torch.stack([mean + sigma * row for row in d])
        assert float((asked["x"] - x).abs().max()) <= 1e-10, t
        order = ellipsoid(x, 100.0).argsort().tolist()[:mu]
        z_mean = torch.stack([w * z[i] for w, i in zip(weights, order, strict=True)]).sum(0)
        mean = mean + sigma * torch.stack([w * d[i] for w, i in zip(weights, order, strict=True)]).sum(0)
        path = (1 - c_sigma) * path + math.sqrt(mueff * c_sigma * (2 - c_sigma)) * z_mean
        for j in range(m):
            c = k / (4**j * n)
            memory[j] = (1 - c) * memory[j] + math.sqrt(mueff * c * (2 - c)) * z_mean
        sigma *= math.exp(c_sigma / 2 * (float(path @ path) / n - 1))
        assert torch.allclose(state.mean, mean, atol=1e-10)
        assert torch.allclose(state.path, path, atol=1e-10)
        assert torch.allclose(state.memory, memory, atol=1e-10)
        assert float(state.sigma) == pytest.approx(sigma, rel=1e-9)


def test_a_translated_problem_gets_the_translated_run_to_1e_11() -> None:
    shift = torch.linspace(-3, 3, 30, dtype=F64)
    x0 = torch.ones(30, dtype=F64)
    here = run(LMMAES(std=0.5), ellipsoid, x0, 100)
    there = run(LMMAES(std=0.5), lambda x: ellipsoid(x - shift), x0 + shift, 100)
    for (a, _), (b, _) in zip(here, there, strict=True):
        assert float((b["x"] - shift - a["x"]).abs().max()) <= 1e-11


def test_its_vectors_learn_what_a_step_size_alone_does_not() -> None:
    def reached(algorithm: LMMAES) -> float:
        x0 = Individual({"x": torch.ones(40, dtype=F64)})
        search = Search(algorithm, Objective(lambda x: ellipsoid(x, 1e4)), x0)
        return float(torch.as_tensor(search.run(max_evaluations=20_000).value))

    assert reached(LMMAES(std=0.5)) < 0.1 * reached(LMMAES(std=0.5, m=1))


def test_a_thousand_genes_are_searched_with_a_few_vectors() -> None:
    x0 = Individual({"x": torch.ones(1000)})
    search = Search(LMMAES(std=0.1), Objective(sphere), x0)
    assert search.run(max_evaluations=12_000).value < 50
    assert search.state is not None
    assert search.state.memory.shape == (4 + int(3 * math.log(1000)), 1000)
    assert search.algorithm.next_k(search.state) == 24


def test_the_sphere_takes_about_ninety_evaluations_per_gene() -> None:
    x0 = Individual({"x": torch.ones(100, dtype=F64)})
    evaluations = Search(LMMAES(std=0.5), Objective(sphere), x0).run(target=1e-8, max_evaluations=20_000).evaluations
    assert 7000 < evaluations < 11_000


def test_wrong_settings_are_refused_in_words() -> None:
    with pytest.raises(ValueError, match="expected m"):
        LMMAES(m=0)
    with pytest.raises(ValueError, match="expected k"):
        LMMAES(k=1)
