"""The Keras backend, its kernels and its devices: the only room that names one."""
