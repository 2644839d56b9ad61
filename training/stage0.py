"""Stage 0, for small models that start from nothing: `accelerate launch training/stage0.py --config FILE`."""

from instructvla.training.training_run import stage_app

app = stage_app(0, "training/configs/tabletop/stage0.yaml")

if __name__ == "__main__":
    app()
