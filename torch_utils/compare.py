"""Compare training runs: best epochs, losses, differing options, curves.

python -m torch_utils.compare outputs/training/res_1 outputs/training/res_2 --html compare.html
"""

from utils.cli.options import CompareOptions
from utils.cli.script import parse_command_line, run_main

if __name__ == "__main__":  # before the heavy imports: --help and mistyped flags answer at once
    OPTIONS = parse_command_line(CompareOptions, "Compare training runs side by side.")

import logging
from pathlib import Path

from torch_utils.runs.comparison import compare_runs
from torch_utils.runs.run_history import read_run
from utils.errors import UserError
from utils.files import write_atomically, write_text
from utils.logs import setup_logging
from utils.run_folder import given_folder

log = logging.getLogger("compare")


def main(options: CompareOptions) -> None:
    """Print a table of the runs; write the HTML page and the curves if requested."""
    setup_logging()
    html = Path(options.html) if options.html else None
    if html is not None and (html.is_dir() or not html.parent.is_dir()):
        raise UserError(f"--html {html}: expected a file name in an existing folder")
    comparison = compare_runs({folder: read_run(Path(folder)) for folder in options.runs})
    log.info("\n".join(comparison.lines()))
    if html is None and options.output is None:
        return
    plots = comparison.plots()
    try:
        if options.output is not None:
            folder = given_folder(Path(options.output))
            for name, data in plots.items():
                write_atomically(folder / name, lambda file, data=data: file.write(data))
            log.info("The curves are in %s", folder)
        if html is not None:
            write_text(html, comparison.page(plots))
            log.info("The page is %s", html)
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be written ({error.strerror or error})") from None


if __name__ == "__main__":
    run_main(main, OPTIONS)
