"""Cycles that an aarch64 program needs on a Neoverse core, on a machine that has none.

:func:`price.price` does it; ``graphopt price`` is its command line. Nothing is timed: the same
program and input give the same figure.

1. The program runs under ``qemu-aarch64`` with ``plugin.c``, which counts every translated block
   and records the order of those in the chosen functions (``execution``). Counts are added up for
   each instruction, so overlapping translations do no harm.
2. Disassembly and counts give basic blocks; the parts of an innermost loop are joined (``blocks``).
3. ``llvm-mca`` prices blocks with LLVM's scheduling model: a loop by the slope between 50 and 150
   iterations, straight code by its busiest resource (``simulator``). Their sum is
   ``cycles_blocks``; it tells where the time goes.
4. Eight windows of 4000 instructions in their real order, each after a warm-up, go through the same
   simulator. Their cycles over the block prices of the same instructions is the factor from
   ``cycles_blocks`` to ``cycles``, the figure to quote. It holds what blocks cannot see: latency at
   the end of loops, and the end of one tile beside the beginning of the next.
5. The peak is asked of the model too, with 24 independent instructions of the class.

Corrections to the model:

- *Late addends (N2).* A multiply-accumulate takes its addend late: a chain of SMMLA or SDOT runs at
  1 cycle a link, not 3, FMLA and BFDOT at 2, not 4, BFMMLA at 3, not 5. LLVM knows this for V1 and
  V2, for N2 from version 23 on. Where a probe shows that it does not, the latency of each result
  that goes straight into a like accumulate is given with an annotation.
- *Width.* llvm-mca counts micro-ops; it is given twice the width, and no price is below
  instructions over width.
- *Lane loads* (``ld1 {v0.s}[2]``) merge into their register. The model lets the whole load wait for
  the old value; here only the merge does.
- Calls cost as much as jumps.

Limits, to be read before quoting a figure:

- Every load hits the first cache level, every branch is predicted, fetching never stalls. There are
  no TLB misses, page faults, bank conflicts, prefetchers, nor stores forwarded to loads. A product
  whose panels do not fit the caches is slower in life, and so is every GEMV on large weights.
- The model is LLVM's reading of Arm's optimization guides. Nothing here was compared with silicon.
  It ranks variants of a kernel and finds the limiting pipe; differences below 5 % mean little.
- Queues, register files and the choice of pipes are idealised. One thread; cycles, not seconds.
- Windows are samples, good to some tenths of a percent on regular code; their edges may lift a
  saturated kernel to 100.6 % of the peak. Very short loops and straight code that mixes micro-ops
  of one pipe with those of several are priced low in ``cycles_blocks``, not in ``cycles``.
- Instructions that the core lacks cost nothing; ``unknown`` names them.
"""
