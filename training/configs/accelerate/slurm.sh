#!/usr/bin/env bash
# 8 machines with 8 GPUs each: sbatch training/configs/accelerate/slurm.sh training/stage1.py training/configs/stage1.yaml
# Told to end (scancel, time limit), the run saves first and a requeued one goes on from there.
#SBATCH --job-name=instructvla
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --output=slurm-%j.log
set -euo pipefail
script=$1 config=$2
shift 2
first_machine=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export first_machine script config
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=280  # seconds until workers that are saving are killed

srun --kill-on-bad-exit=1 bash -c 'exec .venv/bin/accelerate launch \
  --config_file training/configs/accelerate/fsdp2.yaml \
  --num_machines "$SLURM_NNODES" --num_processes $((SLURM_NNODES * 8)) --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$first_machine" --main_process_port 29500 \
  "$script" --config "$config" --resume_from_checkpoint last "$@"' launch "$@"
