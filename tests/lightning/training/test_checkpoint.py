"""Loading the old model's weights."""

from __future__ import annotations

import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from bc_lightning.training._checkpoint import load_h1


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout())


class Wrapper(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = make()
        self.head = nn.Linear(1, 1)

    def training_step(self, batch, batch_idx):
        return self.head(self.model(batch[0]).sum().reshape(1, 1)).sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


def test_state_dict_is_loaded_in_eval_mode(tmp_path):
    trained = make()
    torch.save(trained.state_dict(), tmp_path / "h1.pt")
    h1 = load_h1(make(), tmp_path / "h1.pt")
    assert same_weights(trained, h1)
    assert not any(module.training for module in h1.modules())


def test_checkpoint_of_a_real_trainer_is_loaded_with_its_prefix(tmp_path):
    wrapper = Wrapper()
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 4)), batch_size=4)
    trainer = pl.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    trainer.fit(wrapper, data)
    trainer.save_checkpoint(tmp_path / "h1.ckpt")
    assert same_weights(wrapper.model, load_h1(make(), str(tmp_path / "h1.ckpt"), prefix="model."))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of h1 at .*gone\.ckpt"):
        load_h1(make(), tmp_path / "gone.ckpt")


def test_a_prefix_that_would_fit_is_named(tmp_path):
    torch.save({"state_dict": Wrapper().state_dict()}, tmp_path / "h1.ckpt")
    with pytest.raises(ValueError, match=r"prefix=''; 7 are missing.*; 9 are unexpected.*; prefix='model\.' would fit"):
        load_h1(make(), tmp_path / "h1.ckpt")


def test_keys_of_another_model_are_refused(tmp_path):
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "h1.pt")
    for strict in (True, False):
        with pytest.raises(ValueError, match=r"the file's keys begin \['conv.weight'\]"):
            load_h1(make(), tmp_path / "h1.pt", strict=strict)


def test_not_strict_takes_what_there_is(tmp_path):
    trained = make()
    state = {key: value for key, value in trained.state_dict().items() if not key.startswith("1.")}
    torch.save({**state, "more": torch.zeros(1)}, tmp_path / "h1.pt")
    h1 = load_h1(make(), tmp_path / "h1.pt", strict=False)
    assert torch.equal(h1[0].weight, trained[0].weight)


def test_other_shapes_are_refused(tmp_path):
    torch.save(nn.Linear(4, 5).state_dict(), tmp_path / "h1.pt")
    with pytest.raises(ValueError, match=r"do not fit Linear: (?s:.*)size mismatch for weight"):
        load_h1(nn.Linear(4, 3), tmp_path / "h1.pt")


def test_files_without_a_state_dict_are_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="holds no state dict but a list"):
        load_h1(make(), tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(ValueError, match="cannot read weights from"):
        load_h1(make(), tmp_path / "text.pt")


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save(make(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="tensors and plain values only"):
        load_h1(make(), tmp_path / "whole.pt")
