"""Accuracy of simple methods on the words of `lips`: baselines for a network.

Run: python examples/lips_words_baselines.py [FOLDER]

times    a random forest without pixels: start and end of the word, and the number of words spoken
pixels   a support vector machine on 20 frames of 8 x 8 pixels, minus their mean over time
"""

import sys

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import cinefeed as cf


def main() -> None:
    """Print the accuracy of each method in five folds."""
    folder = sys.argv[1] if len(sys.argv) > 1 else "../shared/data/lips"
    manifest = cf.Manifest.scan(folder, labels=f"{folder}/labels.csv").readable()
    words = np.array(manifest.column("word").to_pylist())
    times = np.array([manifest.column(name).to_pylist() for name in ("word_start_s", "word_end_s", "n_words")], float).T
    times = np.nan_to_num(np.c_[times, times[:, 1] - times[:, 0]])
    methods = {
        "times": (RandomForestClassifier(300, min_samples_leaf=2, random_state=0), times),
        "pixels": (support_vector_machine(), motion(manifest)),
    }
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    print(f"{len(words)} clips, {len(set(words))} words: chance accuracy {1 / len(set(words)):.1%}")
    for name, (method, features) in methods.items():
        predictions = cross_val_predict(method, features, words, cv=folds)
        print(f"{name}: {np.mean(predictions == words):.1%}")


def motion(manifest: cf.Manifest) -> NDArray[np.float32]:
    """Return 20 frames of 8 x 8 pixels of each clip, minus their mean over time, float32 (rows, 1280)."""
    feed = cf.Feed(
        manifest,
        target=None,
        clip=cf.Clip(frames=20, rate_hz=25.0, position="center"),
        frame=cf.Frame(height=8, width=8, channels=1),
    )
    clips = np.concatenate([batch.clips[..., 0].astype(np.float32) for batch in feed.evaluation(manifest)])
    clips = (clips - clips.mean(axis=(1, 2, 3), keepdims=True)) / clips.std(axis=(1, 2, 3), keepdims=True)
    return (clips - clips.mean(axis=1, keepdims=True)).reshape(len(clips), -1)


def support_vector_machine() -> Pipeline:
    """Return the method that learns words from `motion`."""
    return make_pipeline(PCA(100, random_state=0), StandardScaler(), SVC(C=3))


if __name__ == "__main__":
    main()
