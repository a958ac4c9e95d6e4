"""What a run is, what its folder accepts, and its checkpoints, without training."""

import json
from dataclasses import FrozenInstanceError, replace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from helpers import SMALL, make_dataset
from safetensors.numpy import save_file

from jvae_jax import data
from jvae_jax.objectives import CVAE, VAE, JointVAE, Ours
from jvae_jax.trained_model import TrainedModel
from jvae_jax.training.checkpoints import CheckpointError, CheckpointWriter
from jvae_jax.training.loop import evaluate_run
from jvae_jax.training.run import load_run, open_run, plan_run


def make_run(folder, open_folder=open_run, dataset=None, **changes):
    dataset = dataset or make_dataset()
    config = replace(SMALL, workdir=str(folder / "run"), **changes)
    return open_folder(config.resolve(dataset), dataset)


def filled(run, value):
    """A state of the run in which each number has the same value."""
    return jax.tree.map(lambda leaf: np.full(leaf.shape, value, leaf.dtype), run.state_shape())


def save_states(run, negative_elbos):
    writer = CheckpointWriter(run.checkpoints_path)
    for step, negative_elbo in negative_elbos.items():
        writer.save(step, filled(run, step), negative_elbo=negative_elbo, metric_sums={})
    writer.close()


def test_steps_and_paths(tmp_path):
    run = make_run(tmp_path, epochs=5, dataset=make_dataset(train=55))
    assert (run.steps_per_epoch, run.total_steps) == (6, 30)
    assert run.workdir == tmp_path / "run"
    assert run.metrics_path == run.workdir / "metrics.jsonl"
    assert run.checkpoints_path == run.workdir / "checkpoints"
    with pytest.raises(FrozenInstanceError):
        run.workdir = tmp_path


def test_planned_run_has_no_folder(tmp_path):
    run = make_run(tmp_path, plan_run)
    assert list(tmp_path.iterdir()) == []
    assert run.workdir == tmp_path / "run"
    with pytest.raises(ValueError, match="config must be resolved first"):
        plan_run(SMALL, make_dataset())


def test_folder_describes_the_run(tmp_path):
    run = make_run(tmp_path, num_labels=6)
    contents = json.loads((run.workdir / "config.json").read_text())
    assert contents.keys() >= {"format", "config", "data", "environment"}
    assert contents["config"] == json.loads(json.dumps(run.config.to_json()))
    assert contents["data"]["labels_per_class"] == [2, 2, 2]
    assert load_run(run.workdir) == run == load_run(str(run.workdir))


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("folder", "image folder"), ("/data/mine.npz", "mine"), ("emnist/letters", "emnist/letters")],
)
def test_name_of_the_data_has_no_path(tmp_path, dataset, name):
    run = make_run(tmp_path, dataset=make_dataset(name=dataset))
    assert run.data_name == name


def test_unlabelled_classes(tmp_path):
    dataset = make_dataset()
    dataset.train_labels[dataset.train_labels == 1] = -1
    assert make_run(tmp_path, plan_run, dataset).unlabelled_classes == (1,)
    assert make_run(tmp_path, plan_run).unlabelled_classes == ()
    for objective in (JointVAE(), VAE()):
        assert make_run(tmp_path, plan_run, objective=objective).unlabelled_classes == (0, 1, 2)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"num_labels": 6}, 2),
        ({"num_labels": 0}, 0),
        ({"num_labels": "all"}, 0),
        ({"num_labels": 6, "objective": Ours()}, 0),
        ({"objective": JointVAE()}, 0),
        ({"num_labels": 6, "objective": CVAE(unsupervised_epochs=-1), "epochs": 7}, 3),
        ({"num_labels": 6, "objective": Ours(unsupervised_epochs=-1), "init_from": "digits"}, 0),
    ],
)
def test_unsupervised_epochs_need_labels_that_are_used_later(tmp_path, changes, expected):
    settings = {"objective": Ours(unsupervised_epochs=2), "epochs": 4} | changes
    assert make_run(tmp_path, plan_run, **settings).unsupervised_epochs == expected


def test_categories_have_no_names_before_labels_are_used(tmp_path):
    objective = Ours(unsupervised_epochs=2)
    run = make_run(tmp_path, plan_run, objective=objective, num_labels=6, epochs=4)
    for step, names in ((0, "c0 c1 c2"), (12, "c0 c1 c2"), (13, "a b c"), (None, "a b c")):
        assert run.make_model({}, step=step).category_names == tuple(names.split())


def test_network_fits_data_and_config(tmp_path):
    network = make_run(tmp_path, plan_run, make_dataset(channels=3, classes=5)).network
    assert (network.image_shape, network.classes, network.latents) == ((8, 8, 3), 5, 2)


def test_model_of_the_run(tmp_path):
    run = make_run(tmp_path, seed=4, objective=JointVAE())
    (run.workdir / "evaluation.json").write_text('{"mse": 0.5}')
    model = run.make_model({"params": 1})
    assert model.network == run.network
    assert model.variables == {"params": 1}
    assert model.class_names == ("a", "b", "c")
    assert model.unlabelled_classes == (0, 1, 2)
    assert (model.name, model.seed, model.metrics) == ("joint_vae, toy", 4, {"mse": 0.5})


@pytest.mark.parametrize("contents", [None, "{", "[1]", "5"])
def test_run_without_valid_evaluation_has_no_metrics(tmp_path, contents):
    run = make_run(tmp_path)
    if contents is not None:
        (run.workdir / "evaluation.json").write_text(contents)
    assert run.evaluation() == {}


def test_resumes_with_other_paths_processes_and_profile(tmp_path):
    run = make_run(tmp_path)
    again = make_run(
        tmp_path,
        data_dir="elsewhere",
        profile=True,
        coordinator="host:1",
        num_processes=2,
        process_id=0,
    )
    assert again.config.profile
    assert load_run(run.workdir) == run


@pytest.mark.parametrize(
    "changes",
    [
        {"objective": VAE()},
        {"objective": Ours(gamma=1.0)},
        {"seed": 1},
        {"epochs": 3},
        {"batch_size": 4},
        {"learning_rate": 0.5},
        {"ema_decay": 0.5},
        {"num_labels": 6},
        {"labelled_batch_fraction": 0.5},
        {"balance_classes": True},
        {"latents": 3},
        {"fixed_latents": 1},
        {"depth": 2},
        {"precision": "bfloat16"},
        {"save_every": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_does_not_resume_with_another_setting(tmp_path, changes):
    run = make_run(tmp_path)
    written = (run.workdir / "config.json").read_bytes()
    (name,) = changes
    name = "gamma" if changes.get("objective") == Ours(gamma=1.0) else name
    with pytest.raises(ValueError, match=f"contains another run: .*{name} is .* there and .* here"):
        make_run(tmp_path, **changes)
    assert (run.workdir / "config.json").read_bytes() == written


def test_grows_to_more_epochs_with_the_same_settings(tmp_path):
    first = make_run(tmp_path, epochs=3, objective=Ours(capacity_steps=7))
    with pytest.raises(ValueError, match="another run: capacity_steps is 7 there and 9 here"):
        make_run(tmp_path, epochs=5, objective=Ours(capacity_steps=9))
    grown = make_run(tmp_path, epochs=5, objective=Ours(capacity_steps=7))
    assert load_run(first.workdir) == grown
    assert grown.config.epochs == 5
    assert load_run(first.workdir).environment == first.environment


def test_folder_may_contain_hidden_files(tmp_path):
    """File managers and cluster tools leave them."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".DS_Store").touch()
    assert make_run(tmp_path).workdir.is_dir()


def test_parent_folders_are_created(tmp_path):
    assert make_run(tmp_path / "a" / "b").workdir.is_dir()


def test_loads_latest_and_best_checkpoint(tmp_path):
    run = make_run(tmp_path)
    save_states(run, {6: 1.0, 12: 3.0, 18: 2.0})
    for checkpoint, step in (("latest", 18), ("best", 6)):
        jax.tree.map(np.testing.assert_array_equal, run.load_state(checkpoint), filled(run, step))
        variables = run.load_model(checkpoint).variables
        jax.tree.map(np.testing.assert_array_equal, variables, filled(run, step).average)
    assert int(run.load_state().step) == 18
    jax.tree.map(np.testing.assert_array_equal, run.model.variables, filled(run, 18).average)
    assert run.model is run.model


def test_loading_does_not_fall_back_to_an_earlier_checkpoint(tmp_path):
    run = make_run(tmp_path)
    save_states(run, {6: 1.0, 12: 3.0})
    (run.checkpoints_path / "12" / "metrics" / "metrics").write_text("{")
    message = "the checkpoint of step 12 in .* is damaged .* training again resumes from step 6"
    with pytest.raises(CheckpointError, match=message):
        run.load_state()


def write_weights(run, change=lambda arrays: arrays):
    arrays = flatten_dict(filled(run, 2).average, sep="/")
    save_file(change(dict(arrays)), run.workdir / "model.safetensors")


def test_loads_exported_weights(tmp_path):
    run = make_run(tmp_path)
    write_weights(run)
    for checkpoint in ("latest", "best"):
        variables = run.load_model(checkpoint).variables
        jax.tree.map(np.testing.assert_array_equal, variables, filled(run, 2).average)
        with pytest.raises(CheckpointError, match="exported model, which has no checkpoints"):
            run.load_state(checkpoint)
    with pytest.raises(ValueError, match="contains an exported model; choose another --workdir"):
        make_run(tmp_path)


BIAS = "params/decoder/bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda arrays: {**arrays, "more": np.zeros(2, np.float32)},
            r"more is float32 of shape \(2,\), but config.json requires missing",
        ),
        (
            lambda arrays: {name: array for name, array in arrays.items() if name != BIAS},
            r"bias is missing, but config.json requires float32 of shape \(1,\)",
        ),
        (
            lambda arrays: {**arrays, BIAS: np.zeros(3, np.float32)},
            r"bias is float32 of shape \(3,\), but config.json requires float32 of shape \(1,\)",
        ),
        (
            lambda arrays: {**arrays, BIAS: np.zeros(1, np.float16)},
            r"bias is float16 of shape \(1,\), but config.json requires float32 of shape \(1,\)",
        ),
    ],
)
def test_rejects_exported_weights_of_another_model(tmp_path, change, message):
    run = make_run(tmp_path)
    write_weights(run, change)
    with pytest.raises(ValueError, match=message):
        run.load_model()


@pytest.mark.usefixtures("without_jaxtyping")
def test_dataset_is_loaded_from_the_folder_of_the_run(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(data, "load", lambda *args, **options: calls.append((args, options)))
    run = make_run(tmp_path, plan_run, data_dir="mine")
    run.load_dataset()
    run.load_dataset("other")
    assert calls == [
        (("toy", "mine"), {"image_size": 8, "binarize": False}),
        (("toy", "other"), {"image_size": 8, "binarize": False}),
    ]


@pytest.mark.usefixtures("without_jaxtyping")
def test_evaluation_is_written_with_step_and_environment(tmp_path, monkeypatch):
    calls = []

    def evaluate(model, dataset, eval_classifier):
        calls.append((model.variables, dataset, eval_classifier))
        return {"mse": 0.25}

    monkeypatch.setattr(TrainedModel, "evaluate", evaluate)
    run, dataset, classifier = make_run(tmp_path), make_dataset(), object()
    first = evaluate_run(run, dataset, {"a": 1}, step=7)
    assert json.loads((run.workdir / "evaluation.json").read_text()) == first
    assert first["environment"]["jax"] == jax.__version__
    assert {**first, "environment": None} == {"step": 7, "mse": 0.25, "environment": None}
    evaluate_run(run, dataset, {"b": 2}, step=8, filename="other.json", eval_classifier=classifier)
    assert json.loads((run.workdir / "other.json").read_text())["step"] == 8
    assert calls == [({"a": 1}, dataset, None), ({"b": 2}, dataset, classifier)]


def test_initial_state_depends_on_the_seed(tmp_path):
    states = [make_run(tmp_path, plan_run, seed=seed).initial_state() for seed in (0, 0, 1)]
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), states[0])
    assert make_run(tmp_path, plan_run).state_shape() == shapes
    kernels = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(s.variables)]) for s in states]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[0], kernels[2])
