"""Sparse topologies of layers and how they evolve: Cannistraci-Hebb training and its baselines.

Pure functions on :class:`Topology`, a CSR pattern with rows = outputs and columns = inputs; numpy and numba only, no
deep-learning framework. Randomness comes from an explicit :class:`numpy.random.Generator`.
"""

from sparsespike.ann.topology.config import EvolutionConfig
from sparsespike.ann.topology.conv import conv_scores
from sparsespike.ann.topology.conv_evolution import conv_er, conv_mask, conv_topology, evolve_conv
from sparsespike.ann.topology.correlation import feature_correlation
from sparsespike.ann.topology.evolution import LayerStatistics, LayerUpdate, Update, evolve
from sparsespike.ann.topology.initial import brf, bsw, csti, er, swi_std
from sparsespike.ann.topology.pattern import Topology, link_count
from sparsespike.ann.topology.percolation import active_neurons, percolate
from sparsespike.ann.topology.recipes import RECIPES, for_convolutions, initial_sparsity, recipe
from sparsespike.ann.topology.schedules import SparsitySchedule
from sparsespike.ann.topology.scores import best_scored_links, score_matrix

__all__ = [
    "RECIPES",
    "EvolutionConfig",
    "LayerStatistics",
    "LayerUpdate",
    "SparsitySchedule",
    "Topology",
    "Update",
    "active_neurons",
    "best_scored_links",
    "brf",
    "bsw",
    "conv_er",
    "conv_mask",
    "conv_scores",
    "conv_topology",
    "csti",
    "er",
    "evolve",
    "evolve_conv",
    "feature_correlation",
    "for_convolutions",
    "initial_sparsity",
    "link_count",
    "percolate",
    "recipe",
    "score_matrix",
    "swi_std",
]
