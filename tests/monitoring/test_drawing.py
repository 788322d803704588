import numpy as np
import pytest
import torch
from PIL import Image

from experiments.monitoring import drawing


def rightmost_color(picture, color):
    return (np.asarray(picture) == color).all(-1).nonzero()[1].max()


@pytest.mark.parametrize("classes", [1, 2, 10, 40, 41, 1000])
def test_a_matrix_of_any_size_is_a_picture_of_bearable_size(classes):
    matrix = np.eye(classes, dtype=int) * 7
    names = [f"a rather long name of class {number} 字" for number in range(classes)]
    for rates in (False, True):
        picture = drawing.confusion_matrix(matrix, names, rates)
        assert max(picture.size) < 3200
    assert max(drawing.precision_and_recall(matrix, names).size) < 1500


def test_cells_are_as_dark_as_their_rate():
    picture = np.asarray(drawing.confusion_matrix(np.array([[1, 3], [0, 0]]), ["a", "b"], rates=False)).astype(int)
    shares = [picture[y, x].sum() for y, x in ((38, -20), (38, -65), (80, -20))]
    assert shares[0] < shares[1] < shares[2] == 3 * 255


def test_bars_are_as_long_as_their_values():
    matrix = np.array([[5, 5], [0, 10]])
    precision, recall = drawing.precision_recall_of(matrix)
    assert precision.tolist() == pytest.approx([1, 2 / 3])
    assert recall.tolist() == [0.5, 1]
    assert np.isnan(drawing.precision_recall_of(np.zeros((2, 2)))).all()
    picture = drawing.precision_and_recall(np.array([[5, 5], [10, 0]]), ["a", "b"])
    full = drawing.precision_and_recall(np.array([[5, 0], [0, 5]]), ["a", "b"])
    assert rightmost_color(picture, drawing.BLUE) < rightmost_color(full, drawing.BLUE)


def test_inputs_become_the_images_they_were():
    images = torch.randint(0, 256, (5, 3, 8, 9), dtype=torch.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    from experiments.data import normalize

    back = drawing.denormalized(normalize(images, mean, std), mean, std)
    for picture, image in zip(drawing.pictures(back), images, strict=True):
        assert np.array_equal(np.asarray(picture), image.permute(1, 2, 0))


def test_inputs_of_unknown_scale_are_spread_over_all_of_it():
    images = torch.randn(3, 1, 4, 4) * 100
    shown = drawing.denormalized(images, (), ())
    assert shown.flatten(1).amin(1).tolist() == [0, 0, 0]
    assert shown.flatten(1).amax(1).tolist() == pytest.approx([1, 1, 1])
    assert len(drawing.pictures(drawing.denormalized(torch.zeros(0, 1, 4, 4), (), ()))) == 0


@pytest.mark.parametrize(("size", "shown"), [((28, 28), (112, 112)), ((300, 100), (112, 37)), ((1, 900), (1, 112))])
def test_pictures_fit_their_place(size, shown):
    assert drawing.enlarged(Image.new("RGB", size), 112).size == shown


def test_long_captions_stay_under_their_picture():
    image = Image.new("RGB", (28, 28))
    line = "an extraordinarily long class name that goes on and on " * 5
    grid = drawing.mistakes([(image, (line, f"taken for {line} 97.1%"))] * 9)
    assert grid.size == (8 * 120 + 8, 2 * 146 + 8)
