"""Limits on descriptions of networks, checked before memory is allocated.

They keep typing errors and hostile files from using up all memory; published detectors stay far below them.
"""

MAX_NUMBER = 65536
"""Greatest whole number in an option of a network; published networks have fewer than 10,000 channels."""
MAX_WINDOW = 31
"""Greatest kernel size, padding and stride of one layer in pixels; published ones have 13 and 2."""
MAX_STRIDE = 1024
"""Greatest stride of a layer's output relative to the image, in pixels; published networks have 64. The sides of the
frame are multiples of the network's stride."""
MAX_LAYER_WEIGHTS = 2**27
"""Greatest number of weights of one layer; they take half a GiB. Published layers have 5 million."""
MAX_WEIGHTS = 2**29
"""Greatest number of weights of a network; they take 2 GiB. YOLOv3 has 62 million."""
MAX_LAYERS = 1024
"""Greatest number of layers of a network; YOLOv3-SPP has 114."""
MAX_DENSITY = 256.0
"""Greatest number of output values of a layer for each pixel of the image; published networks have 64. At this limit, a
frame of 416 x 416 pixels takes 180 MB a layer."""
MAX_FILE = 1_000_000
"""Most bytes of a .cfg file; published ones have 30,000."""
ANCHOR_SIDES = (1e-3, 65536.0)
"""Range of an anchor's sides in pixels, which keeps their ratios and logarithms finite in float32."""
