import io

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from experiments.learning.optimizers import MuonAdamW, make_optimizer
from experiments.nets import MLP

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


def net():
    torch.manual_seed(0)
    return MLP(in_features=8, num_classes=3, hidden_features=[6, 5])


def steps(network, count, *optimizers):
    """Train a few steps on data that the step's number alone decides."""
    for step in count:
        generator = torch.Generator().manual_seed(step)
        images, labels = torch.randn(4, 8, generator=generator), torch.randint(3, (4,), generator=generator)
        network.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        for optimizer in optimizers:
            optimizer.step()


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


@needs_muon
def test_one_optimizer_does_what_torchs_two_do():
    ours, theirs = net(), net()
    steps(ours, range(5), MuonAdamW(ours.parameters(), lr=0.01, weight_decay=0.1))
    first, bias1, second, bias2, last, bias3 = theirs.parameters()
    muon = torch.optim.Muon([first, second], lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW([bias1, bias2, last, bias3], lr=0.01, weight_decay=0.1, fused=True)
    steps(theirs, range(5), muon, adamw)
    assert weights(ours).equal(weights(theirs))
    assert not weights(ours).equal(weights(net()))


@needs_muon
def test_state_and_schedule_go_on_where_they_were_saved():
    def parts():
        network = net()
        optimizer = MuonAdamW(network.parameters(), lr=0.01)
        return network, optimizer, OneCycleLR(optimizer, max_lr=0.01, total_steps=10, cycle_momentum=False)

    whole, optimizer, schedule = parts()
    for step in range(6):
        steps(whole, [step], optimizer)
        schedule.step()
        if step == 2:
            buffer = io.BytesIO()
            torch.save([whole.state_dict(), optimizer.state_dict(), schedule.state_dict()], buffer)
    buffer.seek(0)
    resumed, optimizer, schedule = parts()
    for part, state in zip((resumed, optimizer, schedule), torch.load(buffer, weights_only=True), strict=True):
        part.load_state_dict(state)
    for step in range(3, 6):
        steps(resumed, [step], optimizer)
        schedule.step()
    assert weights(resumed).equal(weights(whole))
    assert len({group["lr"] for group in optimizer.param_groups}) == 1


@needs_muon
def test_a_closure_is_called_once_and_its_loss_returned():
    network, calls = net(), []
    loss = MuonAdamW(network.parameters()).step(lambda: calls.append(torch.is_grad_enabled()) or 3.0)
    assert (loss, calls) == (3.0, [True])


@needs_muon
def test_a_network_without_hidden_matrices_is_refused():
    with pytest.raises(ValueError, match="Muon is for hidden weight matrices.*optimizer=adamw"):
        MuonAdamW(torch.nn.Conv2d(1, 4, 3).parameters())


def test_a_torch_without_muon_says_so(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(ValueError, match=r"needs torch 2\.9 or newer"):
        MuonAdamW(net().parameters())


@needs_muon
def test_the_head_is_found_wherever_it_is_declared_and_embeddings_are_no_hidden_matrices():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.embedding, self.hidden = nn.Linear(5, 3), nn.Embedding(9, 7), nn.Linear(7, 5)

    network = Net()
    optimizer = make_optimizer(MuonAdamW, network, num_classes=3)
    muon, adamw = (group["params"] for group in optimizer.param_groups)
    assert [id(one) for one in muon] == [id(network.hidden.weight)]
    assert {id(network.head.weight), id(network.embedding.weight)} <= {id(one) for one in adamw}
