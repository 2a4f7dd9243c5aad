"""Federated multimodal emotion recognition in conversations, on PyTorch Lightning."""

__version__ = "0.1.0"
