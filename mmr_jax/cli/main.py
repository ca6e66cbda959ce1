"""`mmr <command> [flags]`: dispatch, and the exit codes that every command shares.

0 done; 2 bad input or configuration; 3 training diverged; 75 interrupted and saved (run the command again).
"""

import importlib
import re
import sys
import traceback

from absl import app, flags, logging

from mmr_jax import config as configs
from mmr_jax.errors import Diverged, Interrupted, UserError, nearest

EXIT_CODES = {UserError: 2, Diverged: 3, Interrupted: 75}

COMMANDS = {
    "run": "the whole study: pretrain, train on every M_T, repair, evaluate every M_E, report",
    "pretrain": "its pretraining stages",
    "finetune": "its probes and training stages, and what they need",
    "evaluate": "its evaluation stages, retrieval and reconstructions, and what they need",
    "stages": "all its stages, what each needs, and which are finished",
    "stage": "exactly one of them, so that a queue can run them apart and at the same time",
    "report": "the report of a workdir, or of your own scores (--scores=matrix.csv or a folder of predictions)",
    "verify": "whether all parameters, checkpoints and records of a workdir are what was written",
    "plan": "memory, FLOPs, cycles and collectives of a config's steps on a TPU that is not there, or here",
    "predict": "class probabilities from whatever modalities are given",
    "prepare": "media files and their labels or a manifest to a data set: frames, audio, text, ready to read",
    "validate-data": "what is in a prepared data set and what is wrong with it: tables and a page of pictures",
    "convert": "published weights (CAV-MAE, CLIP, MAE, ViT) to a folder that a model starts from, and back",
}


def main() -> None:
    """Entry point of the console script."""
    argv = sys.argv
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        print(_usage())
        sys.exit(0)
    try:
        command = _command(argv[1])
        app.run(lambda rest: _guarded(command, rest), argv=[f"mmr {argv[1]}", *argv[2:]], flags_parser=_parse)
    except UserError as error:
        print(f"mmr: error: {error}", file=sys.stderr)
        sys.exit(EXIT_CODES[UserError])


def _usage() -> str:
    lines = [f"  {name:13s} {what}" for name, what in COMMANDS.items()]
    return "usage: mmr <command> [flags]\n\n" + "\n".join(lines) + "\n\nflags of a command: mmr <command> --help"


def _command(name: str):
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}{nearest(name, COMMANDS)}")
    return importlib.import_module(f"mmr_jax.cli.{name.replace('-', '_')}")


def _parse(argv):
    """absl's flags; what is wrong with them is one line and exit code 2, not a page of help or a traceback."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(str(error)) from None
    except SyntaxError as error:
        raise UserError(configs.syntax_error(error)) from None
    except (AttributeError, KeyError, FileNotFoundError) as error:
        raise _config_error(argv, error) from None


def _config_error(argv: list[str], error: Exception) -> UserError:
    """ml_collections raises from deep inside for a missing file or field: name it, and the nearest there is."""
    path = next((a.partition("=")[2] for a in argv if re.match(r"--?config=", a)), "")
    fields = configs.flatten(configs.load(path))  # refuses an absent file by itself
    for argument in argv:
        name = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if name and name[1] not in fields:
            return UserError(f"config has no field {name[1]!r}{nearest(name[1], fields)}")
    return UserError(f"config {path!r}: {error}")


def _guarded(command, argv) -> int:
    """Run a command; where it fails as one host of several, end the process so that the others do not wait."""
    try:
        code = _exit_code(command, argv)
    except Exception:
        if not _one_of_several():
            raise
        traceback.print_exc()
        code = 1
    if code and _one_of_several():
        from mmr_jax.train import hosts

        hosts.leave(code)
    return code


def _one_of_several() -> bool:
    jax = sys.modules.get("jax")  # commands that do without it are never that
    return jax is not None and jax.distributed.is_initialized()


def _exit_code(command, argv) -> int:
    """Run a command and turn its ends into exit codes."""
    if len(argv) > 1:
        raise UserError(f"unexpected argument {argv[1]!r}; flags are written --name=value")
    logging.set_verbosity(logging.WARNING)  # orbax tells of every file
    try:
        command.run()
    except (UserError, Diverged, Interrupted) as error:
        print(f"mmr: {'error: ' if isinstance(error, UserError) else ''}{error}", file=sys.stderr)
        return next(code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
    except OSError as error:
        if error.errno is None:  # raised by a library, not by the system: its traceback says more
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"mmr: error: {where}{error.strerror}", file=sys.stderr)
        return EXIT_CODES[UserError]
    return 0
