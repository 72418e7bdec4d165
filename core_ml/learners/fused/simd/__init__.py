"""What all fused kernels are made of: vectors, blocks, threads, mathematics."""
