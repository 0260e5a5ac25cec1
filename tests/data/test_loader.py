import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from branchynet.data.augment import Augmentation, augment
from branchynet.data.checked import ImageSet
from branchynet.data.loader import DeviceLoader, WorkerLoader, shares
from branchynet.data.normalise import channel_statistics, normalisation, normalise
from branchynet.errors import UserError

SAMPLES, BATCH = 103, 10
GENERATOR = torch.Generator().manual_seed(0)
# The label is the image's number, so that a batch says which images it has.
IMAGES = ImageSet(
    torch.randint(0, 256, (SAMPLES, 2, 7, 6), dtype=torch.uint8, generator=GENERATOR), torch.arange(SAMPLES)
)
MEAN, STD = channel_statistics(IMAGES.x)


def make(kind=DeviceLoader, seed=3, **options) -> DeviceLoader:
    augmentation = Augmentation(shift=2, flip=True, crop_scale=(0.3, 1))
    options = {"shuffle": True, "augmentation": augmentation, **options}
    return kind(IMAGES, BATCH, MEAN, STD, seed=seed, **options)


def epoch_of(loader, epoch=0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    loader.set_epoch(epoch)
    return list(loader)


def order_of(loader, epoch=0) -> list[int]:
    return torch.cat([y for _, y in epoch_of(loader, epoch)]).tolist()


def same(one, other) -> bool:
    return len(one) == len(other) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(one, other, strict=True)
    )


def test_every_image_once_and_the_last_batch_is_kept():
    loader = make()
    sizes = [len(y) for _, y in loader]
    assert sizes == [10] * 10 + [3]
    assert len(loader) == len(sizes)
    assert sorted(order_of(loader)) == list(range(SAMPLES))
    assert order_of(loader) != list(range(SAMPLES))


@pytest.mark.parametrize("kind", [DeviceLoader, WorkerLoader])
def test_numbers_come_with_images_that_are_the_same_every_time(kind):
    for epoch in (0, 1):
        batches = epoch_of(make(kind, augmentation=Augmentation(), numbered=True), epoch)
        plain = epoch_of(make(kind, augmentation=Augmentation()), epoch)
        assert same([batch[:2] for batch in batches], plain)
        assert all(torch.equal(y, numbers) for _, y, numbers in batches)  # the label is the image's number
    assert all(len(batch) == 2 for batch in make(kind, numbered=True))
    # Of each process its own, and of a resumed epoch those that come next.
    loader = make(kind, augmentation=Augmentation(), numbered=True, rank=1, ranks=2)
    loader.load_state_dict({"epoch": 0, "batches": 3})
    assert all(torch.equal(y, numbers) for _, y, numbers in loader)


def test_batches_are_what_a_loop_over_images_gives():
    loader = make()
    order, draws = loader.plan(5)
    k = 0
    for x, y in epoch_of(loader, 5):
        for image, label in zip(x, y, strict=True):
            assert label == order[k]
            one = augment(IMAGES.x[order[k]][None], draws.at(slice(k, k + 1)), loader.augmentation)[0]
            expected = (one / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
            torch.testing.assert_close(image, expected, rtol=1e-5, atol=1e-5)
            k += 1
    assert k == SAMPLES


@pytest.mark.parametrize("kind", [DeviceLoader, WorkerLoader])
def test_what_is_cut_out_is_the_mean_and_the_rest_is_what_it_was(kind):
    side = 3
    plain, cut = (make(kind, augmentation=Augmentation(cutout=pixels)) for pixels in (0, side))
    _, draws = cut.plan(0)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    k = 0
    for (before, labels), (after, same_labels) in zip(epoch_of(plain), epoch_of(cut), strict=True):
        assert torch.equal(labels, same_labels)
        for old, new in zip(before, after, strict=True):
            row, column = int(draws.centres[k, 0] * 7), int(draws.centres[k, 1] * 6)
            rows = slice(max(row - 1, 0), row + 2)
            columns = slice(max(column - 1, 0), column + 2)
            inside = torch.zeros(7, 6, dtype=torch.bool)
            inside[rows, columns] = True
            values = new * std + mean  # bytes / 255
            assert torch.equal(values[:, inside], mean[:, 0].expand(2, int(inside.sum())))
            assert torch.equal(new[:, ~inside], old[:, ~inside])
            k += 1
    assert k == SAMPLES


def test_same_seed_and_epoch_same_batches_in_whatever_history():
    fresh, old = make(), make()
    for epoch in range(4):
        epoch_of(old, epoch)
    assert same(epoch_of(fresh, 2), epoch_of(old, 2))


def test_no_two_pairs_of_seed_and_epoch_share_an_order():
    orders = {tuple(order_of(make(seed=seed), epoch)) for seed in range(8) for epoch in range(8)}
    assert len(orders) == 64
    # Seeds that torch's CPU generator takes for one.
    assert order_of(make(seed=1)) != order_of(make(seed=1 + 2**32))


def test_unshuffled_is_the_sets_order_in_every_epoch():
    loader = make(shuffle=False, augmentation=None)
    assert order_of(loader, 0) == order_of(loader, 1) == list(range(SAMPLES))


# PyTorch warns of two processes on a machine with one core.
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
def test_worker_loader_gives_the_same_batches(workers):
    state = torch.get_rng_state()
    assert same(epoch_of(make(WorkerLoader, num_workers=workers), 1), epoch_of(make(), 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_agrees_with_a_standard_dataloader_without_shuffling():
    ours = epoch_of(make(shuffle=False, augmentation=None))
    float_images = normalise(IMAGES.x, *normalisation(MEAN, STD))
    theirs = list(DataLoader(TensorDataset(float_images, IMAGES.y), batch_size=BATCH))
    assert same(ours, [tuple(batch) for batch in theirs])


@pytest.mark.parametrize("kind", [DeviceLoader, WorkerLoader])
def test_goes_on_in_the_middle_of_an_epoch(kind):
    whole = epoch_of(make(kind), 4)
    killed = make(kind)
    killed.set_epoch(4)
    iterator = iter(killed)
    for _ in range(6):
        next(iterator)
    state = killed.state_dict()

    resumed = make(kind)
    resumed.load_state_dict(state)
    late = iter(resumed)  # made before the epoch is set, as Lightning does
    resumed.set_epoch(4)
    assert same(list(late), whole[6:])
    assert same(epoch_of(resumed, 5), epoch_of(make(kind), 5))  # the next epoch is whole again
    assert resumed.state_dict() == {"epoch": 5, "batches": len(resumed)}


def test_the_state_of_a_finished_epoch_does_not_shorten_the_next():
    resumed = make()
    resumed.load_state_dict({"epoch": 4, "batches": len(resumed)})
    late = iter(resumed)
    resumed.set_epoch(5)
    assert same(list(late), epoch_of(make(), 5))


def test_a_shift_brings_in_black():
    white = ImageSet(torch.full((50, 1, 4, 4), 255, dtype=torch.uint8), torch.zeros(50, dtype=torch.int64))
    loader = DeviceLoader(white, 50, (0.5,), (0.25,), augmentation=Augmentation(shift=1))
    x, _ = next(iter(loader))
    assert x.unique().tolist() == [-2.0, 2.0]  # (0 - 0.5) / 0.25 and (1 - 0.5) / 0.25


@pytest.mark.parametrize("samples", [103, 101, 20, 7])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_every_batch(samples, ranks):
    parts = [shares(samples, 10, rank, ranks) for rank in range(ranks)]
    assert len({len(own) for own in parts}) == 1, "ranks wait for each other in every step"
    covered = []
    for step in zip(*parts, strict=True):
        sizes = [part.stop - part.start for part in step]
        assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1 and sum(sizes) < 10 + max(ranks, 2)
        assert sum(sizes) > 1, "batch norm cannot train on one image"
        covered += [number for part in step for number in range(samples)[part]]
    assert covered == list(range(samples))


@pytest.mark.parametrize("kind", [DeviceLoader, WorkerLoader])
def test_ranks_together_give_the_batches_of_one_process(kind):
    whole = epoch_of(make(kind), 3)
    ranks = [epoch_of(make(kind, rank=rank, ranks=3), 3) for rank in range(3)]
    for (x, y), *parts in zip(whole, *ranks, strict=True):
        assert torch.equal(x, torch.cat([part[0] for part in parts]))
        assert torch.equal(y, torch.cat([part[1] for part in parts]))


def test_more_ranks_than_images_in_a_batch_is_a_mistake():
    for samples, batch_size in ((100, 1), (1, 100)):
        with pytest.raises(UserError, match=r"trainer\.devices"):
            shares(samples, batch_size, 0, 2)
