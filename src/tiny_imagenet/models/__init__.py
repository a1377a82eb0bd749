"""How models are built and saved: the registry, shared blocks, pretrained weights, the model file."""
