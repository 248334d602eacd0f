from .execute import run_recipe as run_recipe
from .execute import test_run as test_run
from .export import Exported as Exported
from .export import export_run as export_run
from .matrix import run_matrix as run_matrix
from .resume import resume_run as resume_run
from .stored import StoredModel as StoredModel
from .stored import load_stored as load_stored
