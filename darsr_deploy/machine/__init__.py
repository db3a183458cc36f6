"""What this machine is: its processor, its GPUs, its energy, what is installed."""
