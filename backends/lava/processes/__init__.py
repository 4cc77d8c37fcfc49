"""Lava processes and their models, and nothing else.

Lava's search for a model executes every file in the folder of a process class, so this folder holds only what may be executed.
Importing it imports Lava.
"""
