"""How near painted objects come to real ones: figures from windows of both, and what a run's folder keeps of them.

The benchmark of the project itself (benchmarks/fidelity.py, docs/fidelity.md) stands on the same windows, distances and
classifiers.
"""
