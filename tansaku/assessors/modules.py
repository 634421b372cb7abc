"""`ModuleObjective`: assesses candidates that are parameters of a module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tansaku import checks
from tansaku.assessors import answers
from tansaku.assessors.asking import report
from tansaku.assessors.chunks import check_chunk, chunk_of
from tansaku.assessors.failures import (
    Failures,
    Fields,
    OnFailure,
    Raised,
    all_assessed,
    check_on_failure,
    placed,
)
from tansaku.assessors.randomness import seed_of, seeded
from tansaku.functional import lazy_copy
from tansaku.guard import Guard
from tansaku.population import Population


@dataclass(frozen=True)
class ModuleObjective:
    """Assesses candidates that are parameters of a module; the module itself is not changed.

    Every candidate is run by `torch.func.functional_call` under vmap, with copies of the module's other parameters and
    of its buffers: batch norm in evaluation mode uses its running statistics, and none are updated. The copies take
    memory only if the module writes into them.

    Random numbers that the module draws from torch's global generator (dropout in training mode) come from the seed of
    the search that asked for the candidates, and the global generator is restored. All candidates of a generation get
    the same numbers, and the next generation gets others. Without a search they come from the global generator.

    Args:
        module: the network; in evaluation mode where it has batch norm, which vmap cannot run in training mode.
        fn: called with a function that stands for the module with one candidate's parameters, returns that
            candidate's value [], or a dictionary of it and more as for `Objective`.
        maximize: whether higher values are better.
        chunk: candidates per vmapped call; all if not given.
        memory: a budget in bytes for what one call writes, from which the chunk follows; instead of ``chunk``.
        on_failure: ``"raise"`` passes on what ``fn`` raises, ``"worst"`` gives the candidate the worst value; see
            `Objective`.

    Attributes:
        failures: the candidates that failed under ``on_failure="worst"``.

    Raises:
        ValueError: both chunk and memory; or (at the call) a budget that not even one candidate fits.
        RuntimeError: the module wrote into the genes, or all candidates of the first generation failed (at the call).

    Example:
        >>> net, x, y = torch.nn.Linear(3, 1), torch.ones(8, 3), torch.ones(8, 1)
        >>> loss = ModuleObjective(net, lambda run: (run(x) - y).square().mean())
    """

    module: torch.nn.Module
    fn: Callable[[Callable[..., Any]], Any]
    maximize: bool = False
    chunk: int | None = None
    memory: int | None = None
    on_failure: OnFailure = "raise"
    failures: Failures = field(default_factory=Failures, init=False, repr=False, compare=False)
    _guard: Guard = field(default_factory=Guard, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_chunk(self.chunk, self.memory)
        check_on_failure(self.on_failure)

    def __call__(self, population: Population) -> Population:
        """The same candidates with their assessment.

        Raises:
            ValueError: genes that are no parameter or buffer of the module, or of another shape.
        """
        own = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        for name in population.genes:
            if name not in own or own[name].shape != population.event_shape(name):
                had = checks.shape_text(own[name].shape) if name in own else f"none among {sorted(own)}"
                raise ValueError(
                    f"expected a parameter {name!r} of shape {checks.shape_text(population.event_shape(name))}, "
                    f"got {had}; take the genes from the module with Individual.from_module"
                )
        rest = {
            name: lazy_copy(x)
            for name, x in own.items()
            if name not in population.genes and (x.device.type == "cpu" or not isinstance(x, torch.nn.Parameter))
        }
        lead = (population.k, *population.batch_shape)
        seed = seed_of(population)
        if self.on_failure == "raise":
            fields = self._fields(population.genes, population.batch_ndim, rest, seed)
        else:
            flat = {name: x.reshape(-1, *population.event_shape(name)) for name, x in population.genes.items()}

            def ask(start: int, stop: int) -> Fields:
                return self._fields({name: x[start:stop] for name, x in flat.items()}, 0, rest, seed)

            k = population.k * population.batch_shape.numel()
            like = {"value": torch.zeros(1, device=population.device)}
            fields, failed = all_assessed(ask, k, False, like, self.maximize)
            report(population, self.failures, [(placed(i, lead), error) for i, error in failed], k - len(failed))
            fields = {name: x.reshape(lead + x.shape[1:]) for name, x in fields.items()}
        return population.assessed(answers.assessment(fields, self.maximize))

    def _fields(
        self, genes: Mapping[str, Tensor], batch_ndim: int, rest: dict[str, Tensor], seed: int | None
    ) -> Fields:
        """[k, *batch_shape, ...] what ``fn`` returned for each candidate.

        Raises:
            Raised: ``fn`` raised, under ``on_failure="worst"``.
            RuntimeError: the module wrote into the genes.
        """

        def one(genes: dict[str, Tensor]) -> Any:
            return self.fn(lambda *inputs: torch.func.functional_call(self.module, {**rest, **genes}, inputs))

        mapped = one
        for _ in range(batch_ndim):
            mapped = torch.func.vmap(mapped, randomness="same")
        copies = self._guard.copies(genes)
        device = next(iter(genes.values())).device
        try:
            with torch.no_grad(), seeded(seed, device):
                run = torch.func.vmap(mapped, randomness="same")
                chunk = self.chunk or chunk_of(self.memory, lambda: run({n: x[:1] for n, x in copies.items()}), genes)
            with torch.no_grad(), seeded(seed, device):
                answer = torch.func.vmap(mapped, chunk_size=chunk, randomness="same")(copies)
        except Exception as error:
            if self.on_failure == "worst":
                raise Raised(error) from error
            raise
        fields = answers.of_all(answer, device)
        del answer  # the guard looks for references to the copies
        if self._guard.changed(copies, genes):
            raise RuntimeError(
                "expected the module to leave its parameters as they are, got genes changed in place; "
                "let forward work on a copy, parameter.clone()"
            )
        return fields
