"""Running and measuring an InstructVLA policy."""
