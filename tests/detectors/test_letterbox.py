import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adaptiveisp.detectors.letterbox import boxes_to_frame, boxes_to_full, frame_size, pad_to_frame, resize_longer_side


@settings(max_examples=40, deadline=None)
@given(st.integers(40, 400), st.integers(40, 400), st.sampled_from([64, 96, 160]))
def test_boxes_go_to_the_frame_and_back(height: int, width: int, size: int) -> None:
    small = resize_longer_side(torch.rand(3, height, width), size)
    frame, box = pad_to_frame(small[None], size, (height, width))
    assert frame.shape == (1, 3, size, size) and max(small.shape[1:]) == size
    full = torch.tensor([[0.0, 0.0, width, height], [width / 4, height / 4, width / 2, height / 2]])
    there = boxes_to_frame(full, box)
    assert there[0].tolist() == pytest.approx([box.left, box.top, box.left + box.width, box.top + box.height], abs=1e-3)
    torch.testing.assert_close(boxes_to_full(there, box), full, rtol=0, atol=1e-3)


def test_the_image_lies_where_the_letterbox_says_and_the_rest_is_grey() -> None:
    image = torch.rand(1, 3, 20, 32)
    frame, box = pad_to_frame(image, 32, (200, 320))
    assert (box.left, box.top, box.width, box.height) == (0, 6, 32, 20)
    assert torch.equal(frame[:, :, 6:26], image)
    assert (frame[:, :, :6] == 0.5).all() and (frame[:, :, 26:] == 0.5).all()


def test_boxes_outside_are_clipped_to_the_full_frame() -> None:
    _, box = pad_to_frame(torch.rand(1, 3, 20, 32), 32, (200, 320))
    assert boxes_to_full(torch.tensor([[-5.0, 0.0, 40.0, 32.0]]), box).tolist() == [[0, 0, 320, 200]]


def test_a_constant_image_stays_constant_when_resized() -> None:
    torch.testing.assert_close(resize_longer_side(torch.full((3, 301, 199), 0.37), 64), torch.full((3, 64, 42), 0.37))


def test_frame_size_by_hand() -> None:
    assert [frame_size(n, 32) for n in (32, 33, 416, 417)] == [32, 64, 416, 448]
