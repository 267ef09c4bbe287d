"""Backends that run a detector's network for inference: PyTorch, onnxruntime and OpenVINO, in float32 or bfloat16."""
