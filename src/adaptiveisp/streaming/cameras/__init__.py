"""Cameras as sources of a stream: V4L2 devices, the Raspberry Pi's cameras, and GenICam cameras."""
