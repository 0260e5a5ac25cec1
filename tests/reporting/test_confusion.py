"""Which class is taken for which, by exit."""

import torch

from branchynet.exits.trace import Trace
from branchynet.reporting.confusion import MOST_CLASSES, confusion_figure, shown_classes


def images_of(figure):
    return [panel.images[0].get_array() for panel in figure.axes if panel.get_visible()]


def test_a_matrix_for_those_that_leave_at_each_exit_and_for_all_at_the_last(report):
    figure = confusion_figure(report)
    titles = [panel.get_title() for panel in figure.axes]
    assert titles == ["leave at exit 1: 5", "leave at exit 2: 3", "all at exit 2: 8"]
    # The first five leave at exit 1: labels 0, 1, 2, 0, 1; the fourth is taken for a 1. Drawn are shares.
    first, second, last = images_of(figure)
    assert first.tolist() == [[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]]
    assert second.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    # At exit 2 the third sample, a 2, is taken for a 0.
    assert last.tolist() == [[1, 0, 0], [0, 1, 0], [0.5, 0, 0.5]]
    counts = [text.get_text() for text in figure.axes[2].texts]
    assert counts == ["3", "3", "1", "1"] and sum(map(int, counts)) == 8
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["a", "b", "c"]


def test_of_many_classes_those_known_least_and_the_others_as_one(make_report):
    """A thousand classes; the samples of one of them are never known."""
    classes = 1000
    label = torch.arange(2000) % classes
    answer = torch.where(label == 700, 3, label)
    trace = Trace(torch.zeros(2000, 2), torch.stack([answer, answer], 1), label)
    many = make_report(
        traces={"val": trace, "test": trace},
        baseline={"val": label >= 0, "test": label >= 0},
        classes=tuple(f"{n}$" for n in range(classes)),
        thresholds=((0.5,),),
        chosen=0,
    )
    shown = shown_classes(many)
    assert len(shown) == MOST_CLASSES and 700 in shown and 3 in shown
    figure = confusion_figure(many)
    first = images_of(figure)[0]
    assert first.shape == (MOST_CLASSES + 1, MOST_CLASSES + 1)
    assert first[shown.index(700), shown.index(3)] == 1 and first[-1, -1] == 1
    assert not figure.axes[0].texts
    assert figure.axes[0].get_yticklabels()[-1].get_text() == "others"
    assert figure.get_size_inches().max() < 30
    figure.canvas.draw()


def test_panels_of_many_exits_stand_in_rows(three_exits):
    figure = confusion_figure(three_exits)
    assert len(images_of(figure)) == 4
