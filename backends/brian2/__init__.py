"""Brian2 as a backend: the graph as NeuronGroups and Synapses, in numpy or as a C++ program."""

from sparsespike.backends.brian2.backend import Brian2Backend

__all__ = ["Brian2Backend"]
