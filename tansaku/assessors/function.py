"""`Objective`: assesses candidates by a function of their genes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from tansaku import shapes
from tansaku.assessors import answers
from tansaku.assessors.asking import report
from tansaku.assessors.cache import Cache, check_discrete
from tansaku.assessors.failures import (
    Failures,
    Fields,
    OnFailure,
    Raised,
    all_assessed,
    check_on_failure,
    placed,
)
from tansaku.guard import Guard
from tansaku.population import Population
from tansaku.randomness import restored

Vectorized = Literal["vmap"] | bool
# what `torch.no_grad` calls in the end; the object itself takes a tenth of a small generation
_record: Any = getattr(torch._C, "_set_grad_enabled", torch.set_grad_enabled)


@dataclass(frozen=True)
class Objective:
    """Assesses a population by a function of its genes. No gradient is recorded.

    ``fn`` receives copies of the genes, which take memory only if something writes into them, so that it cannot change
    the candidates. If it writes into its argument, the call raises, because the answer may then belong to other genes;
    with ``vectorized=False`` it may write. Writes that torch does not count (by numpy, ``.data``) are reported where
    the values are in the host's memory. From one mebibyte of genes on, they are reported only until a call has used
    the memory of its argument without a write; later ones are not reported, and still do not reach the candidates.

    If the shapes allow that ``fn`` was written for one candidate (k equals a size of the genes), ``fn`` is called once
    more, with the first candidate alone [1, *batch_shape, *event_shape]. Only the shape of that answer is read. The
    call is no evaluation and leaves the global random states of torch, numpy and Python as they were.

    What ``fn`` itself draws comes from the global generators and not from the seed of a search; call
    `torch.manual_seed` before the run to repeat it.

    Args:
        fn: called with the genes: a tensor where there is one name and ``named`` is False, else a dictionary of
            tensors. It returns the value, or a dictionary with ``"value"`` and any of ``"cases"``, ``"violation"``,
            ``"descriptor"`` (shapes: see `Assessment`), as tensors or numpy arrays.
        maximize: whether higher values are better.
        vectorized: True, ``fn`` takes all candidates [k, *batch_shape, *event_shape]; ``"vmap"``, it takes one
            candidate [*event_shape] and torch maps it over all; False, it takes one candidate and is called in a
            plain loop, for numpy, scikit-learn or a simulator inside.
        named: whether ``fn`` takes a dictionary even if there is one name.
        on_failure: ``"raise"`` passes on what ``fn`` raises. ``"worst"`` gives a candidate for which ``fn`` raises the
            worst value, +inf (-inf with ``maximize``), as NaN is the worst cost too, and records it in `failures`. A
            call for several candidates that raises is repeated for halves of them until the failing ones are found.
            With ``vectorized=True`` a candidate is then its row of all searches in the batch. KeyboardInterrupt and
            SystemExit are always passed on.
        cache: whether candidates that were assessed before are looked up and not evaluated again, for integer and
            boolean genes and an ``fn`` that gives the same genes the same answer. ``fn`` is then called with the new
            candidates only. A search counts every candidate as an evaluation all the same. The cache keeps the genes
            and the answer of each distinct candidate and is no part of a checkpoint.

    Attributes:
        failures: the candidates that failed under ``on_failure="worst"``.

    Raises:
        TypeError: ``fn`` is not callable, or returns something else (at the call).
        ValueError: values of a wrong shape or on another device; real genes, or a ``batch_shape`` together with
            ``vectorized=True``, with a cache; an ``fn`` that seems to take one candidate (at the call).
        RuntimeError: ``fn`` changed its argument, or all candidates of the first generation failed (at the call).

    Example:
        >>> sphere = Objective(lambda x: x.square().sum(-1))
        >>> sphere(Population({"x": torch.eye(3)})).cost
        tensor([1., 1., 1.])
    """

    fn: Callable[..., Any]
    maximize: bool = False
    vectorized: Vectorized = True
    named: bool = False
    on_failure: OnFailure = "raise"
    cache: bool = False
    failures: Failures = field(default_factory=Failures, init=False, repr=False, compare=False)
    _guard: Guard = field(default_factory=Guard, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not callable(self.fn):
            raise TypeError(f"expected fn to be callable, got {type(self.fn).__name__}; pass a function of the genes")
        if self.vectorized is not True and self.vectorized is not False and self.vectorized != "vmap":
            raise ValueError(f"expected vectorized True, False or 'vmap', got {self.vectorized!r}; choose one of them")
        check_on_failure(self.on_failure)
        if not isinstance(self.cache, bool):
            raise TypeError(f"expected cache True or False, got {self.cache!r}; choose one of them")

    def __call__(self, population: Population) -> Population:
        """The same candidates with their assessment."""
        if self.cache or self.on_failure == "worst":
            fields = self._by_candidate(population)
        else:
            fields = self._ask(population.genes, population.batch_ndim)
        try:
            return population.assessed(answers.assessment(fields, self.maximize))
        except ValueError as error:
            if self.vectorized is not True:
                raise
            raise ValueError(f"{error}, or {shapes.REMEDY}") from None

    def _ask(self, genes: Mapping[str, Tensor], batch_ndim: int) -> Fields:
        """What ``fn`` answers for all candidates.

        Raises:
            Raised: ``fn`` raised, under ``on_failure="worst"``.
        """
        if self.vectorized is False:
            return self._loop(genes, batch_ndim)
        copies = self._guard.copies(genes)
        try:
            answer = self._call(copies, batch_ndim)
        except Exception as error:
            if self.on_failure == "worst":
                raise Raised(error) from error
            if self.vectorized is True and shapes.is_about_shapes(error):
                raise shapes.shape_error(error, genes) from error
            raise
        first = next(iter(genes.values()))
        fields = answers.of_all(answer, first.device)
        del answer  # the guard looks for references to the copies
        if self._guard.changed(copies, genes):
            raise RuntimeError(
                "expected fn to leave its argument as it is, got it changed in place; work on a copy, x.clone()"
            )
        if self.vectorized is True and (self.on_failure == "worst" or "_takes_all" not in self.__dict__):
            shapes.check_lead(fields["value"], first.shape[: 1 + batch_ndim])
            if "_takes_all" not in self.__dict__:
                fields = self._check_takes_all(genes, batch_ndim, fields)
        return fields

    def _call(self, copies: dict[str, Tensor], batch_ndim: int) -> Any:
        given: Any = dict(copies)  # fn may bind other tensors to its names
        if len(copies) == 1 and not self.named:
            (given,) = copies.values()
        recording = torch.is_grad_enabled()
        _record(False)
        try:
            if self.vectorized is True:
                return self.fn(given)
            mapped = self.fn
            for _ in range(1 + batch_ndim):
                mapped = torch.func.vmap(mapped, randomness="different")
            return mapped(given)
        finally:
            _record(recording)

    def _loop(self, genes: Mapping[str, Tensor], batch_ndim: int) -> Fields:
        lead = next(iter(genes.values())).shape[: 1 + batch_ndim]
        flat = {name: x.reshape(-1, *x.shape[1 + batch_ndim :]) for name, x in genes.items()}
        alone = len(flat) == 1 and not self.named
        answered: list[dict[str, Any]] = []
        with torch.no_grad():
            for row in range(lead.numel()):
                one = {name: x[row].detach().clone() for name, x in flat.items()}  # fn may write into it
                try:
                    answer = self.fn(next(iter(one.values())) if alone else one)
                except Exception as error:
                    if self.on_failure == "worst":
                        raise Raised(error) from error
                    error.add_note(f"fn raised this for candidate {row} of {lead.numel()}")
                    raise
                answered.append(answers.by_name(answer))
                if set(answered[-1]) != set(answered[0]):
                    raise ValueError(
                        f"expected fn to return {sorted(answered[0])} for every candidate, got {sorted(answered[-1])} "
                        f"for candidate {row}; return the same keys"
                    )
        like = next(iter(genes.values()))
        rows = {name: torch.stack([answers.of_one(answer[name], like) for answer in answered]) for name in answered[0]}
        return {name: x.reshape(lead + x.shape[1:]) for name, x in rows.items()}

    def _check_takes_all(self, genes: Mapping[str, Tensor], batch_ndim: int, fields: Fields) -> Fields:
        """Makes sure that the answer has one entry per candidate, and is no answer of another shape that fits.

        Raises:
            ValueError: ``fn`` seems to take one candidate.
        """
        value = fields["value"]
        if value.shape[0] == 1:
            return fields  # this call itself was one for a single candidate: it says nothing about the next one
        if shapes.ambiguous(genes, batch_ndim, value.shape):
            fields = {name: x.clone() for name, x in fields.items()}  # fn may write the next answer over this one
            first = {name: x[:1].clone() for name, x in genes.items()}
            with restored():
                try:
                    answer = self._call(first, batch_ndim)
                except Exception as error:
                    if shapes.is_about_shapes(error):
                        raise shapes.shape_error(error, first) from error
                else:
                    single = answers.of_all(answer, value.device)
                    for name, x in fields.items():
                        shapes.check_single(name, single.get(name), x)
        self.__dict__["_takes_all"] = True
        return fields

    def _by_candidate(self, population: Population) -> Fields:
        """The fields, where failed candidates or known ones are told apart; see ``on_failure`` and ``cache``."""
        lead = (population.k, *population.batch_shape)
        genes, batch_ndim, by_row = population.genes, population.batch_ndim, self.vectorized is not True
        if by_row:
            genes = {name: x.reshape(-1, *population.event_shape(name)) for name, x in genes.items()}
            batch_ndim = 0
        if not self.cache:
            fields = self._tolerant(population, genes, batch_ndim, range(next(iter(genes.values())).shape[0]), 0)
        else:
            check_discrete(population, by_row)
            known: Cache = self.__dict__.setdefault("_known", Cache())
            keys = known.keys(genes)
            fresh = known.fresh(keys)
            if fresh:
                rows = torch.tensor(fresh, device=population.device)
                new = {name: x[rows] for name, x in genes.items()}
                new_keys = [keys[i] for i in fresh]
                repeated = len(keys) - sum(map(set(new_keys).__contains__, keys))
                known.add(new_keys, self._tolerant(population, new, batch_ndim, fresh, repeated))
            fields = known.take(keys)
        return {name: x.reshape(lead + x.shape[1:]) for name, x in fields.items()} if by_row else fields

    def _tolerant(
        self, population: Population, genes: Mapping[str, Tensor], batch_ndim: int, numbers: Sequence[int], others: int
    ) -> Fields:
        """The fields of ``genes``, with the worst value where ``fn`` raised, if that is allowed.

        Args:
            population: of which they are a part.
            genes: name -> [j, *batch_shape, *event_shape], j candidates, or single candidates of all searches.
            batch_ndim: of the genes.
            numbers: the place of each of them among all candidates, or among those of all searches.
            others: how many other candidates of the population are assessed already.
        """
        if self.on_failure == "raise":
            return self._ask(genes, batch_ndim)

        def ask(start: int, stop: int) -> Fields:
            return self._ask({name: x[start:stop] for name, x in genes.items()}, batch_ndim)

        batch_shape = next(iter(genes.values())).shape[1 : 1 + batch_ndim]
        like = self.__dict__.get("_like") or {"value": torch.zeros(1, *batch_shape, device=population.device)}
        fields, failed = all_assessed(ask, len(numbers), self.vectorized is False, like, self.maximize)
        if len(failed) < len(numbers):
            self.__dict__["_like"] = {name: x[:1] for name, x in fields.items()}
        by_row = self.vectorized is not True
        shape = (population.k, *population.batch_shape) if by_row else (population.k,)
        places = [(placed(numbers[i], shape), error) for i, error in failed]
        report(population, self.failures, places, len(numbers) - len(failed) + others)
        return fields
