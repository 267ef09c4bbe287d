"""The compiled kernels: loading, forward, backward, threads; and recorded CUDA graphs."""
