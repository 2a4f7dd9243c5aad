"""What a run is made of unless somebody says otherwise."""

from typing import Any

DEFAULTS: dict[str, Any] = {
    "network": {
        "class_path": "fedmer.plugins.networks.sdt.SDT",
        "init_args": {"hidden": 64, "heads": 4, "dropout": 0.3, "gates": "learned"},
    },
    "aggregator": {"class_path": "fedmer.plugins.aggregators.distance.Distance"},
    "privacy": None,
    "conditions": None,
    "partitioner": {"class_path": "fedmer.plugins.partitioners.dialogue.Dialogue"},
    "selector": {"class_path": "fedmer.plugins.selectors.all.All"},
    "executor": {"class_path": "fedmer.plugins.executors.inline.Inline"},
    "optimizer": {
        "class_path": "torch.optim.Adam",
        "init_args": {"lr": 3e-3, "weight_decay": 1e-5},
    },
    "lr_scheduler": None,
    "loss": {"temperature": 8.0},
    "local": {"batch_size": 2},
}
"""What ``fedmer fit`` does when nothing is said: twenty clients of six dialogues each train a small
network in about a minute, chosen by validation on the embedded corpus. Files in ``experiments/``
say what suits others."""

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_epochs": 30,
    "accelerator": "auto",
    "devices": 1,
    "logger": False,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    "enable_checkpointing": True,
    "enable_model_summary": False,
}
"""What the Trainer is given unless somebody says otherwise."""
