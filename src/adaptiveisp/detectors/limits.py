"""Limits of what a description of a network may ask for, checked before anything of that size is made.

They only keep slips of the pen and hostile files from eating all memory; published detectors stay far below them.
"""

MAX_NUMBER = 65536
"""Greatest whole number an option of a network may have; published ones stay below 10,000 channels."""
MAX_WINDOW = 31
"""Greatest window, padding and step of one layer in pixels; published networks have windows of 13 and steps of 2."""
MAX_STRIDE = 1024
"""Greatest span of one pixel of a layer's output, in image pixels; published networks have 64. Sides of frames are
multiples of it."""
MAX_LAYER_WEIGHTS = 2**27
"""Greatest number of weights of one layer; they take half a GiB. Published layers have 5 million."""
MAX_WEIGHTS = 2**29
"""Greatest number of weights of a network; they take 2 GiB. YOLOv3 has 62 million."""
MAX_LAYERS = 1024
"""Greatest number of layers of a network; YOLOv3-SPP has 114."""
MAX_DENSITY = 256.0
"""Greatest number of values that one layer puts out for each pixel of the image; published networks have 64. A frame of
416 pixels then takes 180 MB a layer."""
MAX_FILE = 1_000_000
"""Bytes of a .cfg or a JSON file; published ones have 30,000."""
ANCHOR_SIDES = (1e-3, 65536.0)
"""Range of an anchor's sides in pixels, so that their ratios and logarithms are finite in float32."""
