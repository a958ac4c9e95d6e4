"""The commands ``jvae train``, ``evaluate``, ``generate``, ``explore``, ``export`` and ``models``.

Scripts of the same names in ``experiments/`` call them in a clone, except ``models``.
"""
