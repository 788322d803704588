import pytest
import torch

from experiments.data import Digits
from experiments.data.batches import SequentialBatches, ShuffledBatches


def epoch_of(batches, epoch=0):
    if isinstance(batches, ShuffledBatches):
        batches.set_epoch(epoch)
    return list(batches)


def test_an_epoch_holds_every_sample_once_in_batches_of_the_stated_size():
    batches = ShuffledBatches(103, 10, seed=0)
    epoch = epoch_of(batches)
    assert [len(batch) for batch in epoch] == [10] * 10 + [3]
    assert len(batches) == 11
    assert torch.cat(epoch).sort().values.equal(torch.arange(103))


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    def order(seed, epoch):
        torch.manual_seed(int(torch.randint(1000, ())))  # the global generator has no say
        return torch.cat(epoch_of(ShuffledBatches(100, 10, seed), epoch))

    assert order(0, 0).equal(order(0, 0))
    orders = [order(seed, epoch) for seed in range(3) for epoch in range(3)]
    assert all(not a.equal(b) for i, a in enumerate(orders) for b in orders[:i])


def test_weights_are_the_proportions_of_what_is_drawn():
    weights = torch.tensor([0.0, 1.0, 3.0]).repeat(2000)
    batches = ShuffledBatches(6000, 100, seed=0, weights=weights)
    drawn = torch.cat(epoch_of(batches))
    assert len(drawn) == 6000
    shares = torch.bincount(drawn % 3, minlength=3) / 6000
    assert shares.tolist() == pytest.approx([0, 0.25, 0.75], abs=0.02)
    assert drawn.equal(torch.cat(epoch_of(batches)))
    assert not drawn.equal(torch.cat(epoch_of(batches, 1)))


@pytest.mark.parametrize(("size", "world_size"), [(103, 2), (101, 3), (96, 4), (7, 4)])
def test_training_ranks_share_without_overlap_and_leave_out_less_than_a_rank_each(size, world_size):
    ranks = [ShuffledBatches(size, 10, 0, rank, world_size) for rank in range(world_size)]
    missing = set()
    for epoch in range(20):
        shares = [torch.cat(epoch_of(rank, epoch)).tolist() for rank in ranks]
        seen = [index for share in shares for index in share]
        assert len(seen) == len(set(seen)) == size - size % world_size
        assert len({len(epoch_of(rank, epoch)) for rank in ranks} | {len(rank) for rank in ranks}) == 1
        missing.add(tuple(sorted(set(range(size)) - set(seen))))
    assert len(missing) > 1 or size % world_size == 0


@pytest.mark.parametrize(
    ("size", "world_size", "batch_size"), [(103, 2, 10), (21, 2, 10), (101, 3, 7), (5, 4, 2), (9, 1, 4)]
)
def test_evaluation_ranks_see_every_sample_exactly_once_in_equally_many_batches(size, world_size, batch_size):
    ranks = [list(SequentialBatches(size, batch_size, rank, world_size)) for rank in range(world_size)]
    assert sorted(torch.cat([batch for rank in ranks for batch in rank]).tolist()) == list(range(size))
    assert len({len(rank) for rank in ranks}) == 1
    assert all(0 < len(batch) <= batch_size for rank in ranks for batch in rank)


def test_fewer_samples_than_ranks_are_refused():
    with pytest.raises(ValueError, match="3 samples are too few for 4 ranks"):
        SequentialBatches(3, 10, 0, 4)


def test_a_position_in_larger_batches_is_the_same_position_in_smaller_ones():
    large, small = ShuffledBatches(100, 20, 0), ShuffledBatches(100, 5, 0)
    batches = list(large)
    iterator = iter(large)
    next(iterator), next(iterator)
    small.load_state_dict(large.state_dict())
    assert torch.cat(list(small)).equal(torch.cat(batches[2:]))


def test_more_ranks_go_on_where_one_stopped():
    alone, ranks = ShuffledBatches(100, 10, 0), [ShuffledBatches(100, 5, 0, rank, 2) for rank in range(2)]
    batches = list(alone)
    iterator = iter(alone)
    next(iterator), next(iterator)
    for rank in ranks:
        rank.load_state_dict(alone.state_dict())
    rest = torch.cat([torch.cat(list(rank)) for rank in ranks])
    assert rest.sort().values.equal(torch.cat(batches[2:]).sort().values)


def test_a_position_at_an_epochs_end_stays_there():
    lists, single = ShuffledBatches(95, 20, 0), ShuffledBatches(95, 5, 0)
    list(lists)
    single.load_state_dict(lists.state_dict())
    assert single.start == len(single) == 19


def test_the_last_image_alone_waits_for_another_epoch():
    data = Digits(limit=65, batch_size=32)
    data.setup("fit")
    loader = data.train_dataloader()
    sizes, seen = [], set()
    for epoch in range(3):
        loader.sampler.set_epoch(epoch)
        batches = list(loader.sampler)
        sizes.append([len(batch) for batch in batches])
        seen |= set(torch.cat(batches).tolist())
    assert sizes == [[32, 32]] * 3
    assert len(loader) == 2
    assert seen == set(range(65))
    assert [len(batch) for batch in ShuffledBatches(65, 64, 0)] == [64, 1]  # of itself it leaves out none
