"""Detectors in ONNX files, executed in PyTorch or by onnxruntime."""
