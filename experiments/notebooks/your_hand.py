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
# # Your hand: write a text, and make a font
#
# Estimates a style from pictures of digits that you wrote, one each or a sheet of several, with the
# packaged model of MNIST's digits. Without pictures of yours, digits of one test image each stand
# in for them.
#
# In Colab, *Run all* asks for the pictures.

# %% tags=["parameters"]
PICTURES = []  # paths of your pictures; in Colab, leave it empty to upload some
TEXT = "20 4 1983"
SOURCE = ""  # what pip installs jvae_jax from: "git+https://..." or the folder of a clone

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
# ## Pictures
#
# Dark or bright ink on any ground; a photograph will do. Leave room between the characters of a
# sheet.

# %%
import numpy as np
from PIL import Image

import jvae_jax

IN_COLAB = importlib.util.find_spec("google.colab") is not None
if not PICTURES and IN_COLAB:
    from google.colab import files

    PICTURES = list(files.upload())
if not PICTURES:
    digits = jvae_jax.data.load("mnist_5k").test_images[[6, 150, 275, 330, 480], ..., 0]
    sheet = 255 - np.pad(np.concatenate(list(digits), axis=1), 4)
    Image.fromarray(sheet).resize((4 * sheet.shape[1], 4 * sheet.shape[0])).save("sheet.png")
    PICTURES = ["sheet.png"]

# %% [markdown]
# ## The hand
#
# Above, the characters as they were found; below, as the hand draws them.

# %%
# %matplotlib inline
from jvae_jax import plotting
from jvae_jax.handwriting import build_font, estimate_hand, write

model = jvae_jax.load("digits")
pictures = np.concatenate([model.load_sheet(path) for path in PICTURES])
hand = estimate_hand(model, pictures)
hand.save("me.hand.json")
classes = np.argmax(model.encode(pictures).logits, axis=-1)
drawn = np.asarray(model.decode(hand.z[None].repeat(len(classes), axis=0), classes))
plotting.image_grid(np.stack([pictures / 255.0, drawn]))

# %% [markdown]
# ## A text
#
# Outlines with curves: `.svg` and `.pdf` are sharp at any size.

# %%
import jax

writing = write(model, TEXT, hand, key=jax.random.key(0))
plotting.writing_figure(writing).savefig("text.svg")
plotting.writing_figure(writing)

# %% [markdown]
# ## A font
#
# It has three glyphs of each digit, which programs that support contextual alternates take in turn.

# %%
from IPython.display import display
from PIL import ImageDraw, ImageFont

Path("Me.ttf").write_bytes(build_font(model, hand, key=jax.random.key(0), family="Me"))
page = Image.new("L", (640, 130), 255)
font = ImageFont.truetype("Me.ttf", 90)
ImageDraw.Draw(page).text((20, 10), "0123456789", font=font, fill=0)
display(page)
