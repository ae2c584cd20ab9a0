"""The sections of docs/learning_results.md on real videos, from the committed records: recipes, words, first runs."""

from benchmarks.learning import first_runs, lips_words, recipes

RECIPES = """## The recipe, choice by choice

Small frames (32 x 32) and short trainings, so that many fit on two cores: only differences within a column mean
something. A seed is another split by group, other initial weights and other clips; all choices of a seed share the
split. Intervals are Student's t of the paired differences over seeds; with few seeds they are wide, and several dozen
comparisons make some of them exclude zero by chance. `python -m benchmarks.learning.recipes` trains and prints them;
its docstring describes the sets.

The base is `cnn3d` at a rate of 3e-3 with a warm-up of two epochs, then cosine, weight decay 0.05, MixUp (alpha 0.2),
rotation and shift, dropout 0.2, and label smoothing 0.1 for classes; on `lips` it keeps the features in the order of
time, as `init` does for clips that cover the whole video. Every other line changes what it names. The number of seeds
that were run is in the tables.

What differs from the base by more than chance:

* `lips`: `cnn3d` is better than `cnn_rnn`, a rate of 3e-3 better than 1e-3, rotation and shift better than none, and
  twice the epochs better, which are those that `init` plans. Frames of 64 x 64 pixels took three times as long and
  were no better than 32 x 32. The mean over time is worse by 5 points, and no cosine better by 4; both intervals
  include zero.
* `demo`, a number: `cnn_rnn` is clearly better than `cnn3d` in so short a training, with layer normalisation most. This
  is what `init` chooses for numbers. With `cnn3d`, twice the epochs, 64 x 64 pixels and no cosine
  are better and a rate of 1e-3 is worse: it needs more steps or larger frames to learn this.
* `gait` and `pocus` (19 test videos): nothing. 64 x 64 pixels were best on `gait`; its interval includes zero.
* The heads: on `pocus`, `ordered` is worse than `linear`, because its videos have no common start. Attention pooling
  has the highest mean, and is what `train` chooses for features of random clips. On `lips` none differs by more than
  chance in 30 epochs.

Weight decay, warm-up, label smoothing and MixUp make no difference that these sets can show. `init` writes them
nevertheless: without all of them ("cnn3d, 3e-3, cosine") no set is better by more than chance, and in the full training
of the demo, layer normalisation, warm-up and weight decay raised R2 of seed 2 from 0.849 to 0.964. On `fight`, nothing
was learnt by any choice; one seed was run. The heads are compared on features of EfficientNet-Lite0."""

WORDS = """## Words of `lips`: a head on ImageNet features, five folds

The settings of `examples/lips_words_ordered.toml`, in which only the seed changes; the same five folds for all seeds
and for the support vector machine. Each clip is scored once per seed, by a network that was not trained on it. The
interval resamples clips and seeds. `python -m benchmarks.learning.lips_words` computes the figures from the committed
predictions. They are optimistic: the head and its settings were chosen by trials on the same clips."""

FIRST = """## A first run, with nothing changed

`cinefeed init`, then `cinefeed train`, on two cores that other programs used too. Minutes are those that `init` stated
and those that `train` took, with its evaluation and baselines. Each difference is that to a baseline on the same test
videos; intervals of 95 % resample them. `python -m benchmarks.learning.first_runs` prints the table; its docstring has
the sets and how each run is repeated.

`gait` has no licence and is not part of this project. Its test part is 120 walks of three people who are in no other
part, so the intervals are for other walks of these people, not for other people."""

TRIED = """On `lips` the recipe is above guessing on every split, but not above the thumbnail on every one. It was
chosen by trials on the test part of seed 0, and of a smaller copy of the network on other splits of the same clips:
the figures of the other seeds are fairer, but not of new videos. The trials on seed 0, balanced accuracy:

* 29 frames of 64 x 64, the mean over time, the epoch of the best validation loss (before, in 11 minutes): 0.044
* the same frames in the order of time, the last epochs: 0.044
* 14 frames of 32 x 32 in the order of time, the last epochs: 0.156 (0.086 to 0.242)
* 16 frames of 32 x 32 in the order of time, the last epochs (the recipe now): as in the table"""


def sections() -> str:
    """Return the sections as Markdown."""
    figures = lips_words.describe(lips_words.compare(lips_words.PREDICTIONS)).splitlines()
    words = "\n".join(f"* {line}" for line in figures)
    first = f"{FIRST}\n\n{first_runs.table(first_runs.read())}\n\n{first_runs.means(first_runs.read())}\n\n{TRIED}"
    return f"{RECIPES}\n\n{recipes.tables(recipes.read(recipes.RECORDS))}\n\n{WORDS}\n\n{words}\n\n{first}"
