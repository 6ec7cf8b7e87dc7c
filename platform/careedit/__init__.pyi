from .editor import Editor as Editor
from .editor import load_editor as load_editor
from .errors import AdapterError as AdapterError
from .errors import BaseMismatchError as BaseMismatchError
from .errors import CancelledError as CancelledError
from .errors import CareEditError as CareEditError
from .errors import ExpertError as ExpertError
from .errors import ImageError as ImageError
from .errors import InputError as InputError
from .errors import ManifestError as ManifestError
from .errors import MaskError as MaskError
from .errors import ReplayError as ReplayError
from .errors import UnknownExpertError as UnknownExpertError
from .experts import ExpertManifest as ExpertManifest
from .experts import ExpertSet as ExpertSet
from .experts import load_expert_set as load_expert_set
from .records import EarlyFilter as EarlyFilter
from .records import EditRequest as EditRequest
from .records import EditResult as EditResult
from .records import EditTrace as EditTrace
from .records import RoutingDecision as RoutingDecision

__version__: str
