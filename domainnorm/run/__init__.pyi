import domainnorm.serve as _serve

from .comparison import check_grid as check_grid
from .comparison import describe_plan as describe_plan
from .comparison import resume_comparison as resume_comparison
from .comparison import run_comparison as run_comparison
from .comparison import sample_cells as sample_cells
from .engines import Engine as Engine
from .engines import check_engine as check_engine
from .engines import create_engine as create_engine
from .execute import resume_run as resume_run
from .execute import run_matrix as run_matrix
from .execute import run_recipe as run_recipe
from .execute import test_run as test_run
from .machine import is_first as is_first
from .run_folder import write_page as write_page
from .trial import rehearse as rehearse
from .trial import sample_recipe as sample_recipe

Adapted = _serve.Adapted
Exported = _serve.Exported
Predicted = _serve.Predicted
PredictOptions = _serve.PredictOptions
StoredModel = _serve.StoredModel
StreamOptions = _serve.StreamOptions
adapt_run = _serve.adapt_run
export_run = _serve.export_run
load_stored = _serve.load_stored
predict_run = _serve.predict_run
