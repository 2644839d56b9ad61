"""Stage 2, instruction tuning (paper section 3.2): `accelerate launch training/stage2.py --config FILE`."""

from instructvla.training.training_run import stage_app

app = stage_app(2, "training/configs/stage2.yaml")

if __name__ == "__main__":
    app()
