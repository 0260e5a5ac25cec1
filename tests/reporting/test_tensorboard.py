import re
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.event_accumulator import TENSORS, EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata
from tensorboard.plugins.hparams.backend_context import Context
from torch.utils.tensorboard import SummaryWriter

from branchynet.evaluation.adaptive import adapted
from branchynet.evaluation.noise import Noise
from branchynet.evaluation.outside import Outside
from branchynet.exits.certificate import Certificate
from branchynet.reporting.figures import pictures
from branchynet.reporting.tables import adaptive_table
from branchynet.reporting.tensorboard import LAYOUT, as_hparams, log_report, scalars


def write(folder, report, hparams, drawn=None):
    with SummaryWriter(str(folder)) as writer:
        log_report(writer, report, hparams, drawn or {}, "seed: 1\ntext: '```'\n", step=5)
    return folder


@pytest.fixture(scope="module")
def run(report, images, tmp_path_factory):
    """A folder with the report in it."""
    hparams = {"seed": 1, "optimizer": {"name": "adamw", "nesterov": False}}
    return write(tmp_path_factory.mktemp("run"), report, hparams, pictures(report, images))


@pytest.fixture(scope="module")
def events(run):
    accumulator = EventAccumulator(str(run), size_guidance={TENSORS: 0})
    accumulator.Reload()
    return accumulator


def test_the_scalars_stand_once_at_one_step(events):
    found = {}
    for tag in events.Tags()["scalars"]:
        (event,) = events.Scalars(tag)
        assert event.step == 5
        found[tag] = event.value
    assert found == pytest.approx(
        {
            "baseline/accuracy": 0.75,
            "baseline/balanced_accuracy": 7 / 9,
            "exits/balanced_accuracy_1": 11 / 18,
            "exits/balanced_accuracy_2": 5 / 6,
            "baseline/lowest_recall": 2 / 3,
            "exits/lowest_recall_1": 1 / 3,
            "exits/lowest_recall_2": 1 / 2,
            "operating_point/lowest_recall": 2 / 3,
            "recall/a": 2 / 3,
            "recall/b": 1,
            "recall/c": 1,
            "recall_last_exit/a": 1,
            "recall_last_exit/b": 1,
            "recall_last_exit/c": 1 / 2,
            "baseline/macs": 425,
            "baseline/latency_us": 40,
            "operating_point/accuracy": 0.875,
            "operating_point/balanced_accuracy": 8 / 9,
            "operating_point/macs": 250,
            "operating_point/latency_us": 25,
            "operating_point/gain_macs": 1.7,
            "operating_point/gain_latency": 1.6,
            "operating_point/gain_trunk_only": 40 / 16.75,
            "operating_point/gain_over_static": 1.68,
            "operating_point/noisy": 0,
            "operating_point/measured_accuracy": 0.875,
            "operating_point/measured_latency_us": 30,
            "operating_point/measured_gain_latency": 1.5,
            "operating_point/exit_rate_1": 0.625,
            "operating_point/exit_rate_2": 0.375,
            "operating_point/threshold_1": 0.45,
            "overhead_to_the_end/macs": 75 / 425,
            "overhead_to_the_end/latency": 0.25,
            "headroom/perfect_confidence_accuracy": 0.875,
            "headroom/perfect_confidence_gain_macs": 425 / 300,
            "headroom/perfect_confidence_gain_latency": 40 / 30,
            "headroom/perfect_knowledge_accuracy": 1,
            "headroom/perfect_knowledge_gain_macs": 1.7,
            "headroom/perfect_knowledge_gain_latency": 1.6,
            "headroom/auroc_1": 11 / 15,
            "criterion/area_1": 5 / 11,
            "criterion/macs_1": 10,
            "criterion/latency_us_1": 2,
            "trade_off/gain_at_loss_0": 1.6,
            "trade_off/gain_at_loss_0.5": 1.6,
            "trade_off/gain_at_loss_1": 1.6,
            "trade_off/accuracy_at_gain_1.5": 0.875,
            "trade_off/accuracy_at_gain_2": 0.625,
            "trade_off/accuracy_at_gain_2.4": 0.625,
            "trade_off/accuracy_at_gain_3": 0.625,
        }
    )


def test_no_gain_over_static_where_there_is_none(report, make_report):
    best = make_report(chosen=1)
    assert set(scalars(report)) - set(scalars(best)) == {"operating_point/gain_over_static"}


def test_of_many_classes_no_scalar_stands_for_every_one(make_report):
    found = scalars(make_report(classes=tuple(map(str, range(21)))))
    assert not [tag for tag in found if tag.startswith("recall")] and "operating_point/lowest_recall" in found
    # Twenty have one, but for those without samples.
    found = scalars(make_report(classes=("a b", "a/b", *map(str, range(18)))))
    assert [tag for tag in found if tag.startswith("recall/")] == [
        "recall/0_a_b",
        "recall/1_a_b",
        "recall/2_0",
    ]


def test_noisy_timings_have_a_tag(make_report):
    assert scalars(make_report(noise=(Noise("a reason", 2.0),)))["operating_point/noisy"] == 1


def test_figures_and_texts(events):
    names = ("trade_off", "thresholds", "uncertainty", "rising", "confusion", "samples")
    assert sorted(events.Tags()["images"]) == sorted(f"sweep/{name}" for name in names)
    (image,) = events.Images("sweep/trade_off")
    assert (image.width, image.height, image.step) == (1200, 600, 5)
    assert image.encoded_image_string.startswith(b"\x89PNG")
    (event,) = events.Tensors("sweep/table_1/text_summary")
    assert "| paper: B-LeNet | 99.25 |" in event.tensor_proto.string_val[0].decode()
    (event,) = events.Tensors("sweep/trade_offs/text_summary")
    assert "| gain ≥ 2.4 | 62.50 [" in event.tensor_proto.string_val[0].decode()
    (event,) = events.Tensors("sweep/summary/text_summary")
    assert "operating point, measured" in event.tensor_proto.string_val[0].decode()
    (event,) = events.Tensors("settings/text_summary")
    assert event.tensor_proto.string_val[0].decode() == "    seed: 1\n    text: '```'\n"


def test_everything_is_in_one_run(run):
    (file,) = run.rglob("*")
    assert file.name.startswith("events.out.tfevents")


def test_the_settings_are_in_the_run(events):
    content = events.PluginTagToContent(metadata.PLUGIN_NAME)
    start = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["seed"].number_value == 1
    assert start.hparams["optimizer.name"].string_value == "adamw"
    assert start.hparams["optimizer.nesterov"].string_value == "no"
    assert metadata.SESSION_END_INFO_TAG in content


def test_the_hparams_tab_shows_the_union_of_two_runs(report, three_exits, tmp_path):
    write(tmp_path / "a", report, {"seed": 1, "weights.1": 1.0})
    write(tmp_path / "b", three_exits, {"seed": 2, "weights.2": 0.3})
    multiplexer = EventMultiplexer(tensor_size_guidance={TENSORS: 0})
    multiplexer.AddRunsFromDirectory(str(tmp_path)).Reload()
    provider = MultiplexerDataProvider(multiplexer, str(tmp_path))
    context = Context(TBContext(logdir=str(tmp_path), multiplexer=multiplexer, data_provider=provider))
    request = RequestContext()
    experiment = context.experiment_from_metadata(
        request,
        "",
        True,
        context.hparams_metadata(request, ""),
        context.hparams_from_data_provider(request, "", None),
    )
    assert {info.name: info.differs for info in experiment.hparam_infos} == {
        "seed": True,
        "weights.1": False,
        "weights.2": False,
    }
    metrics = {(info.name.group, info.name.tag) for info in experiment.metric_infos}
    assert metrics == {("", tag) for tag in scalars(report) | scalars(three_exits)}
    assert ("", "operating_point/threshold_2") in metrics


def test_the_layout_is_written_and_catches_the_curves_and_nothing_else(events):
    (event,) = events.Tensors("custom_scalars__config__")
    layout = layout_pb2.Layout.FromString(event.tensor_proto.string_val[0])
    charts = {chart.title: list(chart.multiline.tag) for part in layout.category for chart in part.chart}
    assert charts == {title: kind[1] for part in LAYOUT.values() for title, kind in part.items()}

    (accuracy,) = charts["joint: accuracy on validation"]
    tags = [
        "joint/val_accuracy",
        "joint/val_accuracy_exit_1",
        "joint/val_accuracy_exit_12",
        "joint/val_accuracy_best",
        "joint/val_loss",
        "baseline/val_accuracy",
    ]
    # TensorBoard matches from the tag's beginning.
    assert [tag for tag in tags if re.match(accuracy, tag)] == tags[:3]


def test_settings_are_flat_words_and_numbers():
    settings = {
        "weights": [1.0, 0.3],
        "model": {"exits": {"after": "conv1"}, "depth": 3},
        "schedule": None,
        "augment": True,
        "lr": 1e-3,
        "size": torch.Size([1, 28, 28]),
    }
    assert as_hparams(settings) == {
        "weights": "[1.0, 0.3]",
        "model.exits.after": "conv1",
        "model.depth": 3,
        "schedule": "none",
        "augment": "yes",
        "lr": 1e-3,
        "size": "torch.Size([1, 28, 28])",
    }


def test_shares_have_tags_where_exits_average(averaged, report):
    assert {tag: value for tag, value in scalars(averaged).items() if "share" in tag} == {
        "exits/share_1": 0.0,
        "exits/share_2": 0.25,
    }
    assert not [tag for tag in scalars(report) if "share" in tag]


def test_a_promise_has_its_numbers(report):
    promise = Certificate("Little is lost.", "net", 0.01, 0.1, 500, 0, 0.002, 0.05)
    promised = replace(report, selection=replace(report.selection, certificate=promise))
    new = {tag: value for tag, value in scalars(promised).items() if tag not in scalars(report)}
    assert new == {
        f"certificate/{name}": getattr(promise, name)
        for name in ("limit", "delta", "observed", "p_value", "samples")
    }


def test_images_from_outside_have_scalars_of_their_own(make_report):
    exits = make_report().num_exits
    outside = (Outside("noise", 7, (0.25,) * exits, (0.5, *(0.0 for _ in range(exits - 2)), 0.5)),)
    found = scalars(make_report(outside=outside))
    assert found["outside/noise_early"] == 0.5 and found[f"outside/noise_auroc_{exits}"] == 0.25
    assert not [tag for tag in scalars(make_report()) if tag.startswith("outside")]


def test_adapted_thresholds_have_scalars_and_a_table_of_their_own(report):
    found = replace(report, adapted=adapted(report, most=2.0))
    assert 0 < scalars(found)["adaptive/accuracy"] <= 1 and scalars(found)["adaptive/latency_us"] >= 10
    fixed, other = adaptive_table(found).splitlines()[2:4]
    assert fixed.startswith("| fixed | 0.45 | 87.50 |") and other.startswith("| adaptive | ")
    assert not adaptive_table(report) and "adaptive/accuracy" not in scalars(report)
