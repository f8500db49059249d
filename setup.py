"""Add the workflow to a wheel, since it lies beside the package: Snakefile, rules/, profiles/ and envs/."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithWorkflow(build_py):
    """Copy the workflow to pais_bench/_project, where pais_bench/provenance.py finds it; a checkout needs no copy."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "pais_bench", "_project")
            for name in ("envs", "profiles", "rules"):
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(name, target / name, ignore=ignored, dirs_exist_ok=True)
            shutil.copy("Snakefile", target)


setup(cmdclass={"build_py": BuildWithWorkflow})
