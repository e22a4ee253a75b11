"""Training: from a recipe and a source to a run folder with a model in it.

`train` begins a run, `train_folds` one a fold, `resume` goes on with either. A run can be stopped at any moment: its
newest checkpoint holds all state, and order and augmentation depend on (seed, epoch, record) alone, so going on gives
the weights that never stopping would have given. Test records are listed in the run's split and never opened.
"""

from trocar.training.finishing import RunResult
from trocar.training.guards import Interrupted
from trocar.training.runs import resume, train, train_folds

__all__ = ["Interrupted", "RunResult", "resume", "train", "train_folds"]
