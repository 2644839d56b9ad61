"""Simulators of published benchmarks: each runs in a process and a virtual environment of its own.

`simulator` says what an adapter gives; `benchmark` says what a benchmark is; the rest of this folder is one pair of
modules per simulator: NAME_benchmark (which trials, which table; imported by the runner) and NAME_simulator (the
adapter; imported in the simulator's process alone). Nothing here needs torch or transformers.
"""
