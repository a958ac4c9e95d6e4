"""The commands ``jvae train``, ``evaluate``, ``generate``, ``explore`` and ``export``.

The scripts of the same names in ``experiments/`` call them in a clone.
"""
