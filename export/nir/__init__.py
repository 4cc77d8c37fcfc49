"""The Neuromorphic Intermediate Representation (NIR): graphs for other frameworks, and their networks as graphs.

``writing`` (:func:`to_nir`, :func:`write_nir`) needs ``nir`` alone; ``reading`` (:func:`read_nir`) needs torch too.
"""
