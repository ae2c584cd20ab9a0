"""What simple methods make of the words of `lips`: the numbers that a network has to beat.

Run: python examples/lips_words_baselines.py [FOLDER]

times    a random forest that sees no picture: only when the word begins and ends, and how many words are spoken
pixels   a support vector machine on 20 frames of 8 x 8 pixels, less their mean over time
"""

import sys

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import cinefeed as cf


def main() -> None:
    """Print the share of words that each method finds, out of five folds."""
    folder = sys.argv[1] if len(sys.argv) > 1 else "../shared/data/lips"
    manifest = cf.Manifest.scan(folder, labels=f"{folder}/labels.csv").readable()
    words = np.array(manifest.column("word").to_pylist())
    times = np.array([manifest.column(name).to_pylist() for name in ("word_start_s", "word_end_s", "n_words")], float).T
    times = np.nan_to_num(np.c_[times, times[:, 1] - times[:, 0]])
    feed = cf.Feed(
        manifest,
        target=None,
        clip=cf.Clip(frames=20, rate_hz=25.0, position="center"),
        frame=cf.Frame(height=8, width=8, channels=1),
    )
    clips = np.concatenate([batch.clips[..., 0].astype(np.float32) for batch in feed.evaluation(manifest)])
    clips = (clips - clips.mean(axis=(1, 2, 3), keepdims=True)) / clips.std(axis=(1, 2, 3), keepdims=True)
    moving = (clips - clips.mean(axis=1, keepdims=True)).reshape(len(clips), -1)
    methods = {
        "times": (RandomForestClassifier(300, min_samples_leaf=2, random_state=0), times),
        "pixels": (make_pipeline(PCA(100, random_state=0), StandardScaler(), SVC(C=3)), moving),
    }
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    print(f"{len(words)} clips, {len(set(words))} words: by chance {1 / len(set(words)):.1%} are right")
    for name, (method, features) in methods.items():
        found = cross_val_predict(method, features, words, cv=folds)
        print(f"{name}: {np.mean(found == words):.1%}")


if __name__ == "__main__":
    main()
