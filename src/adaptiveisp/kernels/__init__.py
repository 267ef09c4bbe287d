"""Compiled kernels: loading, registry, forward and backward, autograd, threads; and cached CUDA graphs."""
