"""The commands of ``jvae``, one module each.

Scripts of the same names in ``experiments/`` call train, evaluate, generate, explore and export, in
a clone.
"""
