"""The Neuromorphic Intermediate Representation (NIR): graphs for other frameworks, and their networks as graphs.

``writing`` (:func:`to_nir`, :func:`write_nir`) and ``reading`` (:func:`read_nir`) need ``nir``; to read convolutions and
pools, torch too.
"""
