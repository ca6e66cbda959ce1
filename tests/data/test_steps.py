import numpy as np

from mmr_jax.data.prepared.steps import labels_by_step


def test_labels_hold_where_they_are_said_to():
    """An annotation of AVE: seconds 3 to 7 of ten are a bell; a second label holds from 6.4 s to the end."""
    times = (np.array([1, 2]), np.float32([3.0, 6.4]), np.float32([7.0, 10.0]))
    held = labels_by_step({"duration": 10.0, "labels": {"labels": times}}, "labels", steps=10, classes=3)
    assert np.flatnonzero(held[:, 1]).tolist() == [3, 4, 5, 6]
    assert np.flatnonzero(held[:, 2]).tolist() == [6, 7, 8, 9]  # the middle of second 6 is 6.5
    assert not held[:, 0].any() and not held[:3].any()
