import copy

import torch

from domainnorm.methods.bank import Bank


def test_values_are_read_as_they_were_written_and_others_are_the_fill():
    bank = Bank(2, fill=-1.0)
    bank.write(torch.tensor([5, 1]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert bank.read(torch.tensor([1, 5, 0, 9])).tolist() == [[3, 4], [1, 2], [-1, -1], [-1, -1]]


def test_later_values_replace_earlier_ones():
    bank = Bank(fill=-1, dtype=torch.long)
    bank.write(torch.tensor([2]), torch.tensor([7]))
    bank.write(torch.tensor([2]), torch.tensor([8]))
    assert bank.read(torch.tensor([2])).tolist() == [8]


def test_checkpoint_of_any_length_loads():
    bank, other = Bank(3), Bank(3)
    bank.write(torch.tensor([4]), torch.rand(1, 3))
    other.write(torch.tensor([9]), torch.rand(1, 3))
    other.load_state_dict(copy.deepcopy(bank.state_dict()))
    assert torch.equal(other.values, bank.values)


def test_gradients_of_what_is_remembered_end():
    bank, value = Bank(2), torch.ones(1, 2, requires_grad=True)
    bank.write(torch.tensor([0]), value)
    assert not bank.read(torch.tensor([0])).requires_grad


def test_type_is_that_of_the_bank():
    bank = Bank(2, dtype=torch.float64)
    bank.write(torch.tensor([0]), torch.ones(1, 2, dtype=torch.bfloat16))
    assert bank.read(torch.tensor([0])).dtype == torch.float64
