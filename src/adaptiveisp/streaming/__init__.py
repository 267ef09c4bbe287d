"""Frames as a stream: sources, processing on several threads, smoothing in time, and sinks."""
