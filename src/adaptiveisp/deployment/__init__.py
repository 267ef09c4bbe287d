"""Export to ONNX: a policy, its pipeline and a detector as graphs that run without PyTorch. See docs/export.md."""
