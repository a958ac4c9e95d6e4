# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Any character in any hand, on a TPU
#
# Trains a Joint-VAE whose categorical latent *is* the label, shows what it draws as it learns, and
# draws every digit in the hand of one. In Colab, choose *Runtime > Change runtime type > TPU*, then
# *Run all*. If the runtime is lost, *Run all* again goes on where the last checkpoint ends.

# %% tags=["parameters"]
EPOCHS = 30
DATASET = "auto"  # the full MNIST if it can be downloaded, else the 5,000 digits that come along
SOURCE = ""  # where jvae_jax is installed from: "git+https://..." or the folder of a clone
USE_DRIVE = True  # in Colab: keep the run in Google Drive, where a lost runtime can't take it

# %% [markdown]
# ## Install
#
# Whatever is installed already stays as it is, Colab's own jax above all.

# %%
import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

if importlib.util.find_spec("jvae_jax") is None:
    assert SOURCE, "set SOURCE, in the first cell, to where jvae_jax is installed from"
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
    print("There is no TPU or GPU here, so the full MNIST takes its time.")

# %% [markdown]
# ## Where the run is kept

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
        except Exception as error:  # the reader said no
            print(f"Drive isn't mounted ({error}), so the run is lost with this runtime.")
print(f"The run is kept in {folder}")

# %% [markdown]
# ## Train
#
# Rows fix the character c, columns the style z. The sheet is drawn anew as it learns.

# %%
from IPython.display import Image, display

from jvae_jax import TrainConfig, data, fit

dataset = data.load(DATASET, "data")  # not in Drive, which is slow
config = TrainConfig(
    objective="ours",
    epochs=EPOCHS,
    data_dir="data",
    workdir=str(folder / f"ours-{dataset.name}-{EPOCHS}"),
)
sheet = display("the first sheet comes soon", display_id=True)
run = fit(config, dataset, show=lambda path: sheet.update(Image(path.read_bytes(), width=400)))
sheet.update(Image((run.workdir / "samples.png").read_bytes(), width=400))

# %% [markdown]
# ## Evaluate
#
# Over the whole test split.

# %%
from jvae_jax.evaluation import metrics

print(metrics.format_table(run.evaluation()))

# %% [markdown]
# ## Any character in this style
#
# The style z of a test image, at the left, in every class. `HAND` chooses another.

# %%
# %matplotlib inline
import jax.numpy as jnp
import numpy as np

import jvae_jax
from jvae_jax import plotting
from jvae_jax.generation import characters

HAND = [142, 517, 903]

trained = jvae_jax.load(run.workdir)
images = dataset.test_images[HAND]
labels = jnp.arange(len(dataset.class_names))
drawn = np.asarray(characters.restyle(trained.model, trained.variables, images, labels))
styles = plotting.Panel(images=images[:, None] / np.float32(255), title="style")
display(plotting.panels([[styles, plotting.Panel(images=drawn, title="in it")]]))

# %% [markdown]
# To move styles by hand and to draw with the mouse, install `gradio` and run
# `from jvae_jax.explorer import explorer, show; show(explorer(trained))`.
