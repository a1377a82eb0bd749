"""Build and save models: the registry, shared blocks, pretrained weights, the model file."""
