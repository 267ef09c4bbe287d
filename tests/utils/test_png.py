"""PNG files of our own encoder, decoded by Pillow."""

import io

import numpy as np
import pytest
from PIL import Image

from adaptiveisp.utils import png
from adaptiveisp.utils.png import encode_png


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (1, 9, 3), (33, 1, 3), (64, 48, 3)])
def test_a_decoder_gives_the_same_pixels(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(1)
    smooth = np.add.outer(np.arange(shape[0]), np.arange(int(np.prod(shape[1:])))).astype(np.uint8).reshape(shape)
    for strip in (1 << 20, 100):  # the second one filters row by row
        monkeypatch.setattr(png, "STRIP_BYTES", strip)
        for picture in (generator.integers(0, 256, shape, np.uint8), smooth, np.zeros(shape, np.uint8)):
            with Image.open(io.BytesIO(encode_png(picture))) as decoded:
                assert decoded.mode == ("L" if len(shape) == 2 else "RGB")
                assert np.array_equal(np.asarray(decoded), picture)


def test_a_smooth_picture_becomes_small() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, axis=0).repeat(3, axis=2)
    assert len(encode_png(ramp)) < 3000 and len(encode_png(ramp.transpose(1, 0, 2).copy())) < 3000


def test_other_arrays_are_refused() -> None:
    for wrong in (np.zeros((2, 2, 4), np.uint8), np.zeros(3, np.uint8), np.zeros((0, 2), np.uint8)):
        with pytest.raises(ValueError, match="picture must"):
            encode_png(wrong)
