"""Networks of TensorFlow.js, read from their files and run by PyTorch."""
