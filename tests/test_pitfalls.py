"""What goes wrong in libraries of this kind, and which test catches it here.

Each key is a defect that was found in a well-known library. A value names tests as ``file::test`` below ``tests``, or
claims of a published suite as ``check_algorithm::claim``, ``check_operator::claim`` or ``check_machine::claim``.
"""

from __future__ import annotations

import ast
import gc
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tansaku import ALGORITHMS, Objective, Population, Search
from tansaku.testing import ALGORITHM_CHECKS, OPERATOR_CHECKS
from zenkai_core.testing import CLAIMS

TESTS = Path(__file__).parent
SUITES = {"check_algorithm": ALGORITHM_CHECKS, "check_operator": OPERATOR_CHECKS, "check_machine": CLAIMS}
PITFALLS = {
    "velocity is clamped to the box of positions": [
        "check_algorithm::translates",
        "tansaku/test_algorithms.py::test_particles_start_at_rest_and_stop_at_the_bounds",
    ],
    "an evolution strategy uses raw fitness": ["check_algorithm::only_ranks_matter"],
    "binomial crossover draws normal numbers, the exponential one is inverted": [
        "check_operator::rates_are_what_they_say",
        "tansaku/algorithms/test_de.py::test_binomial_crossover_forces_one_gene_and_takes_the_others_with_the_rate",
        "tansaku/algorithms/test_de.py::test_exponential_crossover_takes_a_run_whose_length_is_geometric",
    ],
    "a rate is applied the wrong way round": [
        "check_operator::rates_are_what_they_say",
        "tansaku/operators/test_variation.py::test_bit_flip_flips_its_rate",
        "tansaku/operators/test_variation.py::test_uniform_reset_changes_its_rate_of_genes",
        "tansaku/operators/test_variation.py::test_gaussian_changes_its_rate_of_genes_by_its_std",
    ],
    "rank selection indexes by argsort where the inverse permutation is needed": [
        "tansaku/operators/test_selection.py::test_linear_rank_chooses_each_rank_as_often_as_theory_says",
        "tansaku/operators/test_selection.py::test_tournament_chooses_each_rank_as_often_as_theory_says",
        "tansaku/operators/test_schemes.py::test_exponential_ranks_fall_by_one_factor",
        "check_algorithm::both_directions_agree",
    ],
    "NSGA-II truncation keeps the wrong half": [
        "tansaku/functional/test_pareto.py::test_ranks_and_crowding_are_those_of_the_obvious_way",
        "tansaku/algorithms/test_nsga2.py::test_whole_fronts_survive_and_of_the_cut_one_the_least_crowded",
    ],
    "one-point crossover never cuts before the last gene, a dimension of size 1 is squeezed away": [
        "tansaku/operators/test_crossovers.py::test_every_set_of_cuts_is_equally_likely_and_the_last_gene_may_be_cut_off",
        "check_algorithm::any_size_works",
        "check_operator::every_place_may_be_cut",
        "check_operator::shapes_are_right",
    ],
    "NaN crashes, ranks best or spreads": [
        "check_algorithm::failed_evaluations_do_no_harm",
        "check_operator::nan_is_never_preferred",
        "tansaku/test_population.py::test_best_is_the_first_of_the_best_and_never_nan",
    ],
    "SBX on integers silently returns NaN": [
        "check_operator::other_dtypes_are_refused",
        "tansaku/operators/test_crossovers.py::test_wrong_dtypes_are_met_by_the_name_of_another_operator",
    ],
    "saved buffers alias each other, a pickled searcher drops its generator": [
        "check_algorithm::saved_searches_continue_exactly",
        "tansaku/test_search.py::test_a_saved_search_goes_on_bit_for_bit",
        "check_machine::a state_dict continues bit for bit",
    ],
    "CMA-ES raises LinAlgError once converged": [
        "check_algorithm::convergence_does_no_harm",
        "check_algorithm::flat_objectives_do_no_harm",
        "tansaku/algorithms/test_cma_es.py::test_no_error_and_no_nan_at_condition_1e12_far_past_convergence",
    ],
    "the rank-mu update builds [k, n, n]; XNES too": ["check_algorithm::memory_is_a_multiple_of_the_population"],
    "statistics that nobody reads are built every step": [
        "check_algorithm::no_hidden_synchronisation",
        "tansaku/test_history.py::test_recording_never_waits_for_the_device",
    ],
    "the monitor keeps every population for ever": [
        "tansaku/test_history.py::test_memory_of_ten_thousand_generations_is_flat",
        "test_pitfalls.py::test_a_long_search_keeps_no_more_tensors_than_a_short_one",
    ],
    "a frozen layer is searched too": [
        "tansaku/test_population.py::test_frozen_layers_are_no_genes_and_stay",
        "tansaku/test_optim.py::test_a_frozen_parameter_is_left_alone",
        "zenkai_core/test_search_rules.py::test_a_parameter_frozen_later_stays_where_it_is",
    ],
    "the search starts near zero and not at the model's weights": [
        "tansaku/test_search.py::test_the_start_is_asked_for_first_and_holds_the_models_own_weights",
    ],
    "CMA-ES refuses bounds": ["check_algorithm::bounds_hold"],
    "a layer's state is keyed by id(x)": ["check_machine::short-lived inputs never collide"],
    "only output 0 of several gets a gradient": [
        "check_machine::every output's target counts",
        "zenkai_core/test_chain_is_backpropagation.py::test_two_inputs_and_two_outputs_equal_backpropagation",
    ],
    "dropout is 1 / 1 - p": [
        "zenkai_core/test_machine.py::test_proposals_are_k_stochastic_passes_that_the_noise_alone_decides",
    ],
    "an ensemble keeps n + 1 members; unfitted members vote": [
        "zenkai_core/test_trees.py::test_the_oldest_member_leaves_and_never_more_than_n_vote",
        "zenkai_core/test_trees.py::test_until_the_first_fit_a_fixed_linear_surrogate_answers_and_never_votes_after",
    ],
}


@cache
def names_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")}


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_every_pitfall_has_its_test(pitfall: str) -> None:
    assert PITFALLS[pitfall]
    for name in PITFALLS[pitfall]:
        where, what = name.split("::")
        known = SUITES[where] if where in SUITES else names_in(TESTS / where)
        assert what in known, f"{name} is no test"


@pytest.mark.parametrize("name", ["hill_climb", "pso", "cma_es", "map_elites"])
def test_a_long_search_keeps_no_more_tensors_than_a_short_one(name: str) -> None:
    def fn(x: Tensor) -> dict[str, Tensor]:
        return {"value": x.square().sum(-1), "descriptor": x[..., :2]}

    search = Search(ALGORITHMS[name](k=4), Objective(fn), Population({"x": torch.rand(4, 3)}))
    held = []
    for generations in (128, 640):
        search.run(max_generations=generations)
        gc.collect()
        held.append(sum(issubclass(type(x), Tensor) for x in gc.get_objects()))
    assert held[1] - held[0] < 100  # three for each chunk of generations that the history has summed up
