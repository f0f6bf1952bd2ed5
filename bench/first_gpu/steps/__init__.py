"""The steps of a run, one module each; `bench.first_gpu.plan` names their order and time limits."""
