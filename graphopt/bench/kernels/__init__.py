"""Benchmarks of single kernels, natively beside other libraries and modelled on Arm cores.

``workloads`` and ``other_ops`` say what is computed, ``shapes`` lists the sizes. ``native`` calls
our kernels here, ``peers`` other libraries, and ``measure`` alternates them; ``arm`` prices our
kernels on Neoverse cores. Both give rows (``row``).
"""
