"""The parts of benchmarks/fidelity.py: cases, windows, features, distances, an independent detector, seams, pictures."""
