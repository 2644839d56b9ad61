"""Claims about the description of a dataset."""

import json

from instructvla.training.data.dataset_description import DatasetDescription
from instructvla.training.data.field_mapping import read_mapping


def test_it_survives_json():
    description = read_mapping("bridge").description
    assert DatasetDescription.from_dict(json.loads(json.dumps(description.to_dict()))) == description
    assert (description.first_step, description.dropped_steps) == (1, 2)
