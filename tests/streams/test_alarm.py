import math

import pytest
import torch

from domainnorm.encoders import DomainGaussians
from domainnorm.errors import DomainNormError
from domainnorm.streams import NoveltyAlarm


def first_alarm(alarm, events, rate):
    for number, unlike in enumerate(events, 1):
        if alarm.update(bool(unlike), rate):
            return number
    return math.inf


def test_expectation_of_a_bet_is_one_at_the_stated_rate():
    rate, gains = 0.02, []
    for unlike in (True, False):
        alarm = NoveltyAlarm()
        alarm.update(unlike, rate)
        gains.append(alarm.evidence)
    assert rate * gains[0] + (1 - rate) * gains[1] == pytest.approx(1)


def test_at_least_the_stated_number_of_images_lie_between_false_alarms():
    run_length, rate = 100, 0.05
    generator = torch.Generator().manual_seed(0)
    lengths = []
    for _ in range(300):
        events = torch.rand(20_000, generator=generator) < rate
        lengths.append(first_alarm(NoveltyAlarm(run_length), events.tolist(), rate))
    # Geometric tails: the standard error of the mean is a seventeenth of it.
    assert sum(lengths) / len(lengths) > run_length


def test_run_length_holds_for_thresholds_that_were_calibrated():
    run_length, lengths = 200, []
    for seed in range(60):
        torch.manual_seed(seed)
        gaussians = DomainGaussians(1, 4)
        gaussians.fit(torch.randn(200, 4), torch.zeros(200, dtype=torch.long))
        gaussians.fit_thresholds(torch.randn(100, 4), torch.zeros(100, dtype=torch.long))
        unlike = ~gaussians.is_known(gaussians(torch.randn(3000, 4)))
        rate = float(gaussians.false_alarms[0])
        lengths.append(first_alarm(NoveltyAlarm(run_length), unlike.tolist(), rate))
    early = sum(length < run_length for length in lengths) / len(lengths)
    # Whatever is expected at least 200 images later comes within a tenth of them rarely.
    assert early < 0.25
    assert sum(min(length, 3000) for length in lengths) / len(lengths) > run_length


def test_change_is_noticed_after_a_few_images():
    alarm = NoveltyAlarm(10_000)
    assert first_alarm(alarm, [False] * 1000, 0.02) == math.inf
    assert alarm.is_quiet
    assert first_alarm(alarm, [True] * 100, 0.02) == 4
    assert alarm.is_quiet


def test_one_in_three_images_is_enough():
    assert first_alarm(NoveltyAlarm(10_000), [True, False, False] * 100, 0.02) < 40


def test_nothing_is_bet_where_the_rate_is_unknown():
    assert first_alarm(NoveltyAlarm(2), [True] * 100, 1.0) == math.inf


def test_impossible_run_length_is_refused():
    with pytest.raises(DomainNormError, match="run_length: got 1, expected more than 1 image"):
        NoveltyAlarm(1)


def test_state_goes_on():
    one, other = NoveltyAlarm(10_000), NoveltyAlarm(10_000)
    one.update(True, 0.02)
    other.load_state_dict(one.state_dict())
    assert one.update(True, 0.02) == other.update(True, 0.02)
    assert one.evidence == other.evidence


@pytest.mark.parametrize("number", [1, 8, 50, 300])
def test_bound_on_false_alarms_holds_for_nine_in_ten_draws(number):
    held, draws = 0, 400
    generator = torch.Generator().manual_seed(number)
    for _ in range(draws):
        gaussians = DomainGaussians(1, 1)
        gaussians.count.fill_(10)
        values = torch.randn(number, 1, generator=generator)
        gaussians.fit_thresholds(values, torch.zeros(number, dtype=torch.long))
        tail = torch.distributions.Normal(0, 1).cdf(-gaussians.threshold.sqrt()).mul(2)
        held += bool(tail[0] <= gaussians.false_alarms[0])
    assert held / draws == pytest.approx(0.9, abs=0.05)


def test_infinite_run_length_is_refused():
    with pytest.raises(DomainNormError, match="run_length: got inf, expected a finite number"):
        NoveltyAlarm(float("inf"))
