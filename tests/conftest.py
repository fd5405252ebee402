"""Settings of every test: no network, few threads, deprecations that a library logs are errors.

The libraries are imported where they are needed: the process that hands the tests out to others needs none of them.
"""

import os


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # but for the checks against a loopback Hub
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"CUDA_VISIBLE_DEVICES": "", "ACCELERATE_USE_CPU": "true", "TQDM_DISABLE": "1"}
os.environ.setdefault("OMP_NUM_THREADS", "1")

import functools  # noqa: E402
import gc  # noqa: E402
import logging  # noqa: E402
import re  # noqa: E402
import runpy  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import zlib  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from contextlib import contextmanager, nullcontext  # noqa: E402
from pathlib import Path  # noqa: E402

import hypothesis  # noqa: E402
import pytest  # noqa: E402


SCRIPT = Path(__file__).parents[1] / "examples" / "text_preference" / "train_text_to_image_tpo.py"
hypothesis.settings.register_profile("same examples every time", derandomize=True)
hypothesis.settings.register_profile(
    "other examples", derandomize=False
)  # pytest --hypothesis-profile "other examples"
hypothesis.settings.load_profile("same examples every time")


class LoggedDeprecation(logging.Handler):
    """Raises what a library only logs: some say by their logger that an argument is deprecated, without a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        if "deprecated" in record.getMessage():
            raise DeprecationWarning(record.getMessage())


def settle_libraries() -> None:
    """One thread, no bars, no waiting."""
    import datasets
    import torch

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.1  # it would wait 5 seconds after every streamed pass


def pytest_configure(config):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in its background without it
    hands_tests_out = config.getoption("dist", "no") != "no" and not hasattr(config, "workerinput")
    if hands_tests_out:
        return
    settle_libraries()
    for library in ("accelerate", "datasets", "diffusers", "huggingface_hub", "peft", "transformers"):
        logging.getLogger(library).addHandler(LoggedDeprecation())


@pytest.hookimpl(optionalhook=True)  # of xdist
def pytest_xdist_make_scheduler(config, log):
    """Hands whole files out, whose tests share what they make, and as one all files that start processes: one server forks them."""
    from xdist.scheduler import LoadScopeScheduling

    starts_processes = re.compile(r"^(import processes|from (processes|test_build) import )", re.MULTILINE)

    @functools.cache
    def unit_of(file: str) -> str:
        return "processes" if starts_processes.search((config.rootpath / file).read_text()) else file

    class WholeFiles(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit_of(nodeid.partition("::")[0])

    return WholeFiles(config, log)


def pytest_collection_finish(session):
    gc.freeze()  # what has been imported stays: no search for garbage goes through it again


def pytest_runtest_setup(item):
    """What a test draws from torch's global generator depends on its name and the order's seed, not on the tests before it."""
    import torch

    seed = item.config.getoption("randomly_seed", 0)
    torch.manual_seed(zlib.crc32(f"{seed} {item.path.name} {item.name}".encode()))


def reset_accelerate() -> None:
    """Lets the next `Accelerator` of this process start afresh."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    for state in (AcceleratorState, PartialState, GradientState):
        state._reset_state()


@contextmanager
def process_left_as_it_was() -> Iterator[None]:
    """Nothing of what runs inside is left in this process: accelerate's state, variables, modules of temporary folders, where
    it looks, the root logger."""
    reset_accelerate()
    environ, folder, path, root = dict(os.environ), os.getcwd(), list(sys.path), logging.getLogger()
    modules = set(sys.modules)
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        root.handlers, root.level = handlers, level
        os.chdir(folder)
        sys.path[:] = path
        for name in sys.modules.keys() - modules:
            if "pytest-of-" in (getattr(sys.modules[name], "__file__", None) or ""):
                del sys.modules[name]
        for name in os.environ.keys() - environ.keys():
            del os.environ[name]
        os.environ |= environ
        reset_accelerate()


@pytest.fixture(autouse=True)
def own_process():
    """As if each test had a process of its own."""
    with process_left_as_it_was():
        yield


@pytest.fixture(scope="session", autouse=True)
def few_texts_compared():
    """An audit compares each of some texts with all others: with 200 that takes longer than all the rest of a small build."""
    from diffusers_tpo.negatives.audit import diversity

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(diversity, "SELF_BLEU_TEXTS", 30)
        yield


@contextmanager
def white_pictures() -> Iterator[None]:
    """Pictures of matplotlib stay white: drawing them takes longer than all the rest of a tiny run."""
    from matplotlib.figure import Figure
    from PIL import Image

    def save(figure, file, **options) -> None:
        Image.new("RGB", (8, 8), "white").save(file, "png")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


def run_program(script: Path, flags: dict, white: bool = True) -> None:
    """Runs a script in this process, as `python script <flags>` would, and leaves the process as it was.

    Args:
        white: leaves the pictures white.
    """
    with process_left_as_it_was(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *as_flags(flags)])
        with white_pictures() if white else nullcontext():
            runpy.run_path(str(script), run_name="__main__")


def as_flags(flags: dict) -> list[str]:
    """`rank=4` becomes `--rank 4`, `use_lora=True` becomes `--use_lora`; `None` is left out."""
    words = []
    for name, value in flags.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None:
            words += [f"--{name}", *map(str, value if isinstance(value, list) else [value])]
    return words


@pytest.fixture(scope="session")
def pipe_dir(tmp_path_factory) -> str:
    import tiny

    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny.make_pipe().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory) -> str:
    """Eight paired rows, as `save_to_disk` writes them."""
    import tiny

    folder = tmp_path_factory.mktemp("data") / "paired"
    tiny.make_dataset(8).save_to_disk(folder)
    return str(folder)


@pytest.fixture(scope="session")
def small_flags(pipe_dir, data_dir) -> dict:
    """The flags that every run on the tiny pipeline needs."""
    import tiny

    return {
        "pretrained_model_name_or_path": pipe_dir,
        "train_data_dir": data_dir,
        "resolution": tiny.RESOLUTION,
        "learning_rate": 1e-3,
        "rank": 4,
        "validation_inference_steps": 2,
        "report_to": "none",
    }


@pytest.fixture
def run_script(small_flags):
    """Runs the training script in this process, as `python train_text_to_image_tpo.py <flags>` would."""

    def run(**flags) -> None:
        run_program(SCRIPT, small_flags | flags)

    return run


@pytest.fixture
def refused(run_script, tmp_path, capsys):
    """Runs the script with wrong input and returns the one sentence that the user sees."""

    def run(**flags) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            run_script(**({"use_lora": True, "max_train_steps": 1, "output_dir": tmp_path / "model"} | flags))
        assert stopped.value.code == 2
        message = capsys.readouterr().err
        assert "Traceback" not in message
        sentences = [line for line in message.splitlines() if line.startswith("error: ")]
        assert len(sentences) == 1
        return sentences[0]

    return run
