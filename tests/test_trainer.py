"""Claims about the trainer: losses apart, exact resumption, whole checkpoints, and clear ends."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModel, TrainerCallback

from instructvla.training.run_card import RunFacts
from instructvla.training.trainable_parts import STAGE_1, STAGE_2, count_parts, train_only
from instructvla.training.trainer import InstructVLATrainer, last_checkpoint, trainer_arguments
from tests.training_inputs import nano_for, reaching_datasets, stream_maker

LOSSES = ("loss", "lm_loss", "flow_loss", "grad_norm")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return reaching_datasets(tmp_path_factory.mktemp("data"))


def make_trainer(data, folder, steps=4, probes=(), callbacks=(), facts=None, every=None, **settings):
    datasets, data_settings = data
    model = nano_for(datasets)
    train_only(model, STAGE_1)
    options = {"save_steps": 2, "logging_steps": 1, "disable_tqdm": True, "per_device_train_batch_size": 2}
    args = trainer_arguments(folder, every, max_steps=steps, **(options | settings))
    make = stream_maker(model, datasets, data_settings)
    return InstructVLATrainer(model, args, make, probes=probes, callbacks=callbacks, facts=facts)


def curve(trainer) -> list[dict]:
    return [{name: entry[name] for name in LOSSES} for entry in trainer.state.log_history if "lm_loss" in entry]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same_weights(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_losses_are_logged_apart_and_add_up(data, tmp_path):
    trainer = make_trainer(data, tmp_path, steps=2)
    trainer.train()
    for entry in curve(trainer):
        assert entry["loss"] == pytest.approx(entry["lm_loss"] + entry["flow_loss"], rel=1e-6)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_is_bit_equal_to_the_uninterrupted_one(data, tmp_path, workers):
    """With dropout on: the random numbers are resumed too."""
    options = {"dataloader_num_workers": workers}
    whole = make_trainer(data, tmp_path / "whole", **options)
    whole.train()
    make_trainer(data, tmp_path / "parts", steps=2, **options).train()
    resumed = make_trainer(data, tmp_path / "parts", **options)
    resumed.train(tmp_path / "parts" / "checkpoint-2")
    assert curve(resumed) == curve(whole)
    assert same_weights(tmp_path / "whole" / "checkpoint-4", tmp_path / "parts" / "checkpoint-4")
    states = [json.loads((tmp_path / run / "checkpoint-4" / "data_state_0.json").read_text()) for run in RUNS]
    assert states[0]["loader"] == states[1]["loader"]


RUNS = ("whole", "parts")


class Kill(TrainerCallback):
    """Sends this process a signal in the middle of a step."""

    def __init__(self, step: int):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_and_the_run_goes_on_exactly(data, tmp_path):
    whole = make_trainer(data, tmp_path / "whole", save_steps=100)
    whole.train()
    stopped = make_trainer(data, tmp_path / "parts", save_steps=100, callbacks=[Kill(2)])
    stopped.train()
    assert stopped.stopped_by_signal and stopped.state.global_step == 3
    resumed = make_trainer(data, tmp_path / "parts", save_steps=100)
    resumed.train(last_checkpoint(tmp_path / "parts"))
    assert curve(resumed) == curve(whole)
    assert same_weights(tmp_path / "whole" / "checkpoint-4", tmp_path / "parts" / "checkpoint-4")


def test_a_signal_to_the_whole_group_leaves_the_data_workers_at_work(data, tmp_path):
    """Slurm and torchrun signal every process; torch's handler would end the workers, and the run with them."""

    class KillAll(Kill):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == self.step:
                for worker in multiprocessing.active_children():
                    os.kill(worker.pid, signal.SIGTERM)
            super().on_step_begin(args, state, control, **kwargs)

    trainer = make_trainer(data, tmp_path, steps=20, callbacks=[KillAll(2)], dataloader_num_workers=2)
    trainer.train()
    assert trainer.state.global_step == 3 and (tmp_path / "checkpoint-3").is_dir()


def test_losses_since_the_last_log_line_are_resumed_too(data, tmp_path):
    options = {"logging_steps": 4, "save_steps": 100}
    whole = make_trainer(data, tmp_path / "whole", **options)
    whole.train()
    make_trainer(data, tmp_path / "parts", callbacks=[Kill(2)], **options).train()
    resumed = make_trainer(data, tmp_path / "parts", **options)
    resumed.train(last_checkpoint(tmp_path / "parts"))
    assert curve(resumed) == curve(whole) and len(curve(whole)) == 1


def test_a_new_learning_rate_holds_from_the_resumed_step_on(data, tmp_path):
    make_trainer(data, tmp_path, steps=2).train()
    resumed = make_trainer(data, tmp_path, learning_rate=1e-6)
    resumed.train(tmp_path / "checkpoint-2")
    rates = [entry["learning_rate"] for entry in resumed.state.log_history if "lm_loss" in entry]
    assert rates == pytest.approx([5e-5, 5e-5, 1e-6, 1e-6])


def test_a_run_at_its_last_step_is_not_trained_further(data, tmp_path):
    make_trainer(data, tmp_path, steps=2).train()
    with pytest.raises(ValueError, match="is at step 2 and max_steps is 2: nothing is left"):
        make_trainer(data, tmp_path, steps=2).train(tmp_path / "checkpoint-2")


def test_another_accumulation_is_refused(data, tmp_path):
    make_trainer(data, tmp_path, steps=2).train()
    with pytest.raises(ValueError, match="gradient_accumulation_steps 1, this run has 2"):
        make_trainer(data, tmp_path, gradient_accumulation_steps=2).train(tmp_path / "checkpoint-2")


def test_the_newest_checkpoint_stays_beside_the_best(data, tmp_path):
    class Best(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            state.best_model_checkpoint = str(tmp_path / "checkpoint-1")

    make_trainer(data, tmp_path, steps=3, save_steps=1, save_total_limit=1, callbacks=[Best()]).train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-3"]


def test_rows_of_other_tokens_are_bit_unchanged_after_training(data, tmp_path):
    trainer = make_trainer(data, tmp_path, steps=2, learning_rate=1e-2, weight_decay=0.1)
    before = nano_for(data[0]).state_dict()
    trainer.train()
    after = weights(tmp_path / "checkpoint-2")
    first, count = trainer.model.config.query_token_id, trainer.model.config.num_action_queries
    for name in ("language_model.embed_tokens.weight", "language_model.lm_head.weight"):
        changed = (after[name] != before[name]).any(dim=1).nonzero().flatten().tolist()
        assert changed == list(range(first, first + count))
    rows = [group for group in trainer.optimizer.state if group.shape[0] == count]
    assert len(rows) == 2
    assert all(
        state["exp_avg"].shape == row.shape for row, state in trainer.optimizer.state.items() if row in set(rows)
    )


def test_a_checkpoint_is_a_folder_that_auto_model_loads_and_acts(data, tmp_path):
    facts = RunFacts(stage="1, action pre-training", parameters={"action_expert": (3, 3)})
    trainer = make_trainer(data, tmp_path, steps=2, facts=facts)
    trainer.train()
    model = AutoModel.from_pretrained(tmp_path / "checkpoint-2", trust_remote_code=True)
    frame = data[0].training["reaching"][0]
    from tests.training_batch import picture

    action = model.generate_action(picture(), frame.instructions[0], max_new_tokens=2)
    assert action.actions.shape == (1, 16, 7)
    card = (tmp_path / "checkpoint-2" / "README.md").read_text()
    assert "1, action pre-training" in card and "flow_loss" in card
    assert list(model.processor.statistics) == ["reaching"]


def test_no_more_checkpoints_are_kept_than_asked_for(data, tmp_path):
    make_trainer(data, tmp_path, steps=3, save_steps=1, save_total_limit=2).train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-3"]
    assert not list(tmp_path.glob(".saving"))


def fail_at_saving(monkeypatch, error):
    def full(self, output_dir):
        Path(output_dir, "half").write_text("half a file")
        raise error

    monkeypatch.setattr(InstructVLATrainer, "_save_optimizer_and_scheduler", full)


FULL_DISK = (
    OSError(28, "No space left on device"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos. No space left on device"),
)


@pytest.mark.parametrize("error", FULL_DISK, ids=lambda error: type(error).__name__)
def test_a_full_disk_leaves_the_last_checkpoint_whole(data, tmp_path, monkeypatch, error):
    make_trainer(data, tmp_path, steps=2).train()
    before = weights(tmp_path / "checkpoint-2")
    resumed = make_trainer(data, tmp_path)
    fail_at_saving(monkeypatch, error)
    with pytest.raises(ValueError, match="(?s)checkpoint-4 can't be written.*No space left.*--resume_from_checkpoint"):
        resumed.train(tmp_path / "checkpoint-2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(tmp_path / "checkpoint-2").items())
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"


def test_a_process_killed_while_saving_leaves_the_last_checkpoint_and_no_half_one(data, tmp_path, monkeypatch):
    make_trainer(data, tmp_path, steps=2).train()
    resumed = make_trainer(data, tmp_path)
    if (child := os.fork()) == 0:

        def die(self, output_dir):
            Path(output_dir, "half").write_text("half a file")
            os.kill(os.getpid(), signal.SIGKILL)

        InstructVLATrainer._save_optimizer_and_scheduler = die
        resumed.train(tmp_path / "checkpoint-2")
    deadline = time.monotonic() + 60
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert (tmp_path / ".saving").exists() and last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    make_trainer(data, tmp_path).train(tmp_path / "checkpoint-2")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-2", "checkpoint-4"]


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_batch(data, tmp_path):
    trainer = make_trainer(data, tmp_path)
    with torch.no_grad():
        trainer.model.action_expert.action_head[0].weight.fill_(float("nan"))
    with pytest.raises(ValueError, match="step 1: the loss is nan .*the batch is reaching/.*, frame .*; reaching/"):
        trainer.train()
    written = json.loads((tmp_path / "bad_batch_0.json").read_text())
    assert written["step"] == 1 and len(written["samples"]) == 2


def test_probes_are_asked_at_each_evaluation_and_at_the_end(data, tmp_path):
    asked = []

    def probe(model, step):
        asked.append(step)
        return {"eval_number": 1.0}

    trainer = make_trainer(data, tmp_path, steps=5, probes=[probe], every=2)
    trainer.train()
    assert asked == [2, 4, 5]
    assert [entry["step"] for entry in trainer.state.log_history if "eval_number" in entry] == asked


def test_accumulated_batches_make_one_step(data, tmp_path):
    trainer = make_trainer(data, tmp_path, steps=2, gradient_accumulation_steps=3)
    trainer.train()
    state = json.loads((tmp_path / "checkpoint-2" / "data_state_0.json").read_text())
    assert state["loader"]["workers"][0]["made"] == 6
    assert curve(trainer)[0]["loss"] == pytest.approx(sum(list(curve(trainer)[0].values())[1:3]), rel=1e-6)


def trained(*arguments, **settings):
    trainer = make_trainer(*arguments, steps=2, **settings)
    trainer.train()
    return trainer


def test_checkpointed_activations_give_the_same_curve(data, tmp_path):
    """With dropout on: recomputed activations are those of the forward pass."""
    plain, checkpointed = (trained(data, tmp_path / str(on), gradient_checkpointing=on) for on in (False, True))
    assert checkpointed.model.language_model.layers[0].gradient_checkpointing
    assert curve(plain) == curve(checkpointed)


def test_bf16_autocast_stays_near_the_float32_curve(data, tmp_path):
    plain, mixed = (trained(data, tmp_path / str(on), bf16=on) for on in (False, True))
    assert mixed.accelerator.mixed_precision == "bf16"
    for entry, same in zip(curve(plain), curve(mixed), strict=True):
        assert entry["loss"] == pytest.approx(same["loss"], rel=0.02)


@pytest.mark.parametrize("missing", ["trainer_state.json", "data_state_0.json", "optimizer.pt"])
def test_a_checkpoint_that_is_not_whole_is_refused(data, tmp_path, missing):
    make_trainer(data, tmp_path, steps=2).train()
    (tmp_path / "checkpoint-2" / missing).unlink()
    with pytest.raises(ValueError, match="is no checkpoint of a training run"):
        make_trainer(data, tmp_path).train(tmp_path / "checkpoint-2")


def test_a_checkpoint_of_another_model_or_of_other_workers_is_refused(data, tmp_path):
    make_trainer(data, tmp_path, steps=2).train()
    with pytest.raises(ValueError, match="the state is of 1 data workers, this loader has 2"):
        make_trainer(data, tmp_path, dataloader_num_workers=2).train(tmp_path / "checkpoint-2")
    datasets, settings = data
    other = nano_for(datasets, adapter_config={"experts": 2})
    train_only(other, STAGE_2)
    args = trainer_arguments(tmp_path, None, max_steps=4, per_device_train_batch_size=2)
    trainer = InstructVLATrainer(other, args, stream_maker(other, datasets, settings))
    with pytest.raises(ValueError, match="are of another model than this run's"):
        trainer.train(tmp_path / "checkpoint-2")


def test_nothing_to_train_is_refused(data, tmp_path):
    datasets, settings = data
    model = nano_for(datasets).requires_grad_(False)
    args = trainer_arguments(tmp_path, None, max_steps=4)
    with pytest.raises(ValueError, match="No tensor of the model is trained"):
        InstructVLATrainer(model, args, stream_maker(model, datasets, settings))
    assert all(trained == 0 for trained, _ in count_parts(model).values())
