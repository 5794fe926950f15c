"""Handwritten digits among 20 clients that share no images and no architecture: a task beside beam tracking.

README.md says how to write the data, how to run it, and what comes out. Each client has its own mixture of digits
(Dirichlet), and one of three networks. The public set has no labels.
"""

import numpy as np
from torch import nn
from torch.nn import functional

import softbeam


class Digits(softbeam.Classification):
    """Which of ten digits an image shows; the clients' shares of the digits differ, so each counts by itself, too."""

    num_classes = 10
    title, noun = "digit recognition", "digit"
    metrics = {
        "accuracy": softbeam.Metric("Accuracy"),
        "balanced": softbeam.Metric("Balanced accuracy"),
        "log_loss": softbeam.Metric("Log loss", unit="nats", scale=1.0, decimals=2, is_gain=False),
    }

    def __init__(self, smoothing=0.0):
        self.smoothing = smoothing

    def loss(self, logits, labels):
        return functional.cross_entropy(logits, labels, label_smoothing=self.smoothing)

    def scores(self, probs, labels):
        is_right = probs.argmax(axis=1) == labels
        return {
            "accuracy": is_right.mean(),
            "balanced": np.mean([is_right[labels == one].mean() for one in np.unique(labels)]),
            "log_loss": -np.log(np.maximum(probs[np.arange(len(labels)), labels], 1e-12)).mean(),
        }


IMAGE = softbeam.Modality(
    name="image",
    frame_shape=(64,),
    dtype="float32",
    unit="grey levels from 0 to 16 of 8 x 8 pixels, row by row",
    encoder="Encoder",
    colour="#0072b2",
    least_spread=(1.0,),
)


class Convolution(nn.Module):
    """Two convolutions."""

    def __init__(self, spec, width=8):
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(width, 2 * width, 3), nn.ReLU()
        )
        self.head = nn.Linear(8 * width, spec.num_classes)

    def features(self, frames):
        return self.encode(frames["image"].view(-1, 1, 8, 8) / 16).flatten(1)

    def classify(self, features):
        return self.head(features)


class Perceptron(nn.Module):
    """One hidden layer."""

    def __init__(self, spec, hidden=64):
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(64, hidden), nn.ReLU())
        self.head = nn.Linear(hidden, spec.num_classes)

    def features(self, frames):
        return self.encode(frames["image"].flatten(1) / 16)

    def classify(self, features):
        return self.head(features)


def write(folder="digits-data", clients=20, alpha=0.3):
    """Deal 1,797 images: a tenth to the server, a quarter to the public set, a fifth to the test, the rest to clients.

    A client has some forty, too few to hold any out for model selection.
    """
    from sklearn.datasets import load_digits  # only the writer needs it

    images = load_digits()
    table = softbeam.SensorTable({"image": images.data.astype(np.float32)}, labels=images.target)
    softbeam.add_sensor(IMAGE)
    with softbeam.FederationWriter(folder, num_classes=10, validation=0.0) as writer:
        shares = {"server": 0.1, "public": 0.25, "test": 0.2}
        split = softbeam.Dirichlet(clients, alpha)
        writer.deal(table, split, shares=shares, client_test=0.25, public_labels=False)


if __name__ == "__main__":
    write()
