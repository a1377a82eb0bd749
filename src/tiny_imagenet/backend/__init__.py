"""The Keras backend: set-up, devices, processor, faster kernels. Only this room names a backend."""
