"""Commands of datasets.py: check and convert."""

import json
import logging
from pathlib import Path

from utils.cli.options import CheckOptions, ConvertOptions
from utils.data_tools.check import check_data
from utils.data_tools.convert import check_new_folder, convert
from utils.data_tools.demo import make_demo
from utils.data_tools.repair import repair_data
from utils.data_tools.report import write_report
from utils.errors import DataError
from utils.files import write_text
from utils.labels.data_config import load_data_config
from utils.loading.size_rule import SizeRule
from utils.logs import setup_logging
from utils.run_folder import given_folder

log = logging.getLogger("datasets")


def convert_command(options: ConvertOptions) -> None:
    """Write a data set in another label format; images are copied."""
    setup_logging()
    config = load_data_config(options.data)
    if config.generate is not None:
        make_demo(config)
    path = convert(config, options.label_type, options.to, Path(options.output), drop_unknown=options.drop_unknown)
    log.info("The converted data set is %s: --data %s --label-type %s", path.parent, path, options.to)


def check_command(options: CheckOptions) -> None:
    """Report the problems of a data set and their effect on training; exit code 2 if it would not start."""
    setup_logging()
    config = load_data_config(options.data)
    for file in filter(None, (options.json, options.html)):
        given_folder(Path(file).parent)
    if config.generate is not None:
        make_demo(config)
    if options.fix is not None:
        check_new_folder(config, Path(options.fix))
    checked = check_data(config, options.label_type, drop_unknown=options.drop_unknown)
    for line in checked.lines(options.limit):
        log.info(line)
    if options.json is not None:
        write_text(Path(options.json), json.dumps(checked.as_dict(), indent=1))
        log.info("The full list is in %s", options.json)
    if options.html is not None:
        write_report(Path(options.html), checked, SizeRule(options.imgsz), limit=options.limit)
        log.info("The page is %s", options.html)
    if options.fix is not None:
        path = repair_data(config, checked, Path(options.fix))
        log.info("The repaired data set is %s: --data %s --label-type %s", path.parent, path, options.label_type)
    elif checked.stops:
        raise DataError(f"{options.data}: training would not start: see the problems above that stop it")
