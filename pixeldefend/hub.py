"""What is used of huggingface_hub, imported in one place and quietly."""

import warnings

with warnings.catch_warnings():
    # in a notebook it warns that ipywidgets is missing, for progress bars of downloads that do not happen here
    warnings.simplefilter("ignore")
    from huggingface_hub import ModelCardData, PyTorchModelHubMixin, save_torch_state_dict, snapshot_download

__all__ = ["ModelCardData", "PyTorchModelHubMixin", "save_torch_state_dict", "snapshot_download"]
