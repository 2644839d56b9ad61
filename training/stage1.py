"""Stage 1, action pre-training (paper section 3.2): `accelerate launch training/stage1.py --config FILE`."""

from instructvla.training.training_run import stage_app

app = stage_app(1, "training/configs/stage1.yaml")

if __name__ == "__main__":
    app()
