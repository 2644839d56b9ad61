import json

from instructvla.evaluation.simulators.simulator import Trial


def test_a_trial_comes_back_from_its_record():
    trial = Trial("put the spoon", 3, 17, "widowx", 60, ("single",), False, {"place": [0.1, 0.2]}, "spoon first")
    assert Trial.of_record(json.loads(json.dumps(trial.record()))) == trial
