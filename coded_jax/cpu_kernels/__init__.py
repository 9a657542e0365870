"""Faster kernels for CPUs: convolutions by oneDNN, gradients of max pooling."""
